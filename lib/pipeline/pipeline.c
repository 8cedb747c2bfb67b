/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pipeline.c - builds a replica out of stages and queues, runs its lcores, takes it apart.
 */
#include "base/assert.h"
#include "pipeline/stages.h"

#include <rte_errno.h>
#include <rte_lcore.h>
#include <rte_pause.h>

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

/* Empty polls that yield before an lcore sleeps, and its first sleep. */
#define IDLE_YIELDS 64u
#define IDLE_SLEEP_NS_MIN UINT64_C(2000)
/* Polls of the TX stages that follow a stop: what was written before it still goes out. */
#define LAST_POLLS 64u

/* ------------------------------------------------------------------ building */

static uint32_t
lcore_of(const struct chp_pipeline *p, enum chp_stage_kind kind, uint32_t index)
{
	uint32_t i = chp_node_lcore_of(&p->node, kind, index);

	CHP_ASSERT_OP(i, <, p->node.n_lcores); /* the configuration was validated */
	return i;
}

/* The TX stage that a stage sends to: one on its own lcore, else by number. */
static uint32_t
tx_of(const struct chp_pipeline *p, uint32_t lcore, uint32_t number)
{
	const struct chp_lcore_config *l = &p->node.lcore[lcore];

	for (uint32_t i = 0; i < l->n_stages; i++) {
		if (l->stage[i].kind == CHP_STAGE_TX)
			return l->stage[i].index;
	}
	return number % p->node.n_tx;
}

/* A queue from a stage on an lcore to a TX stage. */
static int
connect_tx(struct chp_pipeline *p, struct chp_queue *q, uint32_t lcore, uint32_t tx)
{
	struct chp_tx *t = &p->tx[tx];

	CHP_ASSERT_OP(t->n_inputs, <, CHP_TX_INPUTS_MAX);
	t->input[t->n_inputs++] = q;
	return chp_queue_init(q, p->node.stage_ring, lcore == lcore_of(p, CHP_STAGE_TX, tx));
}

static int
build_rx(struct chp_pipeline *p, uint32_t index)
{
	struct chp_rx *s = &p->rx[index];
	uint32_t lcore = lcore_of(p, CHP_STAGE_RX, index);
	bool with_control = lcore == lcore_of(p, CHP_STAGE_CONTROL, 0);

	s->p = p;
	s->lcore = &p->lcore[lcore];
	s->index = index;
	s->trust = p->node.rx_checksum == CHP_RX_CHECKSUM_OFF ? CHP_TRUST_ALL : CHP_TRUST_NONE;
	s->delayed = rte_zmalloc(NULL, sizeof(*s->delayed), CHP_CACHE_LINE);
	s->paused = rte_zmalloc(NULL, p->cluster.shards * p->cluster.n_members * sizeof(*s->paused), CHP_CACHE_LINE);
	if (s->delayed == NULL || s->paused == NULL)
		return -ENOMEM;
	s->delayed->random.state = p->config.incarnation + index;
	for (uint32_t i = 0; i < p->cluster.shards; i++) {
		bool same = lcore == lcore_of(p, CHP_STAGE_SHARD, i);
		uint32_t capacity = same ? CHP_LOCAL_QUEUE : p->node.stage_ring;

		if (chp_queue_init(&s->peers[i].queue, capacity, same) != 0 ||
		    chp_queue_init(&s->clients[i].queue, capacity, same) != 0)
			return -ENOMEM;
		p->shard[i].peers[index] = &s->peers[i].queue;
		p->shard[i].clients[index] = &s->clients[i].queue;
	}
	if (chp_queue_init(&s->urgent, CHP_CONTROL_RING, with_control) != 0 ||
	    chp_queue_init(&s->ordinary, CHP_CONTROL_RING, with_control) != 0)
		return -ENOMEM;
	p->control->urgent[index] = &s->urgent;
	p->control->ordinary[index] = &s->ordinary;
	return connect_tx(p, &s->to_tx, lcore, tx_of(p, lcore, index));
}

static int
build_tx(struct chp_pipeline *p, uint32_t index)
{
	struct chp_tx *s = &p->tx[index];

	s->p = p;
	s->lcore = &p->lcore[lcore_of(p, CHP_STAGE_TX, index)];
	s->index = index;
	s->delayed = rte_zmalloc(NULL, sizeof(*s->delayed), CHP_CACHE_LINE);
	if (s->delayed == NULL)
		return -ENOMEM;
	s->delayed->random.state = ~(p->config.incarnation + index);
	return 0;
}

/* Of a shard on the channel to its host: another one in each life, and in each process. */
static uint64_t
shard_incarnation(const struct chp_pipeline *p, uint32_t index)
{
	struct chp_random r = { .state = p->config.incarnation };
	uint64_t drawn;

	r.state = chp_random_u64(&r) + ((uint64_t)p->shard[index].life << 32 | index);
	do {
		drawn = chp_random_u64(&r);
	} while (drawn == 0);
	return drawn;
}

static void
fill_shard_config(const struct chp_pipeline *p, uint32_t index, const char *name,
		  struct chp_shard_config *out)
{
	const struct chp_cluster_config *c = &p->cluster;
	const struct chp_node_config *n = &p->node;

	*out = (struct chp_shard_config){
		.protocol = chp_protocol_find(c->protocol),
		.application = chp_application_find(c->application),
		.memory = &chp_memory_rte,
		.name = name,
		.cluster_hash = c->hash,
		.shard = index,
		.shards = c->shards,
		.self = n->node,
		.n_nodes = c->n_members,
		.hash_seed = c->hash_seed,
		.payload_bytes_max = p->payload_bytes_max,
		.key_bytes_max = c->key_bytes_max,
		.value_bytes_max = c->value_bytes_max,
		.keys_max = c->keys_max,
		.value_blocks_max = c->value_blocks_max,
		.sessions_max = c->sessions_max,
		.session_window = c->session_window,
		.session_idle_ns = c->session_idle_ns,
		.credits = c->credits,
		.link_window = c->link_window,
		.log_entries = n->log_entries,
		.log_blocks = n->log_blocks,
		.ops = n->ops,
		.copy_bytes = n->copy_bytes,
		.rto_ns_min = n->rto_ns_min,
		.rto_ns_max = n->rto_ns_max,
		.ack_delay_ns = n->ack_delay_ns,
		.link_down_ns = n->link_down_ns,
		.election_ns = n->election_ns,
		.leader_lease_ns = n->leader_lease_ns,
		.clock_drift_ppm = n->clock_drift_ppm,
		.has_host = c->hosts,
		.is_durable = c->durability == CHP_DURABILITY_DATASTORE,
		.incarnation = shard_incarnation(p, index),
		.batch_items = c->batch_items,
		.batch_bytes = c->batch_bytes,
		.batch_age_ns = c->batch_age_ns,
		.loads_max = c->loads_max,
		.busy_fill_percent = c->hosts ? c->busy_fill_percent : 100,
	};
}

int
chp_shard_stage_begin(struct chp_shard_stage *s)
{
	struct chp_shard_config config;
	char name[32];
	int rc = 0;

	(void)snprintf(name, sizeof(name), "%s.%u", s->p->name, s->shard);
	fill_shard_config(s->p, s->shard, name, &config);
	s->core = chp_shard_create(&config, &rc);
	return s->core != NULL ? 0 : rc;
}

/* A shard that cannot be made when the program starts: say what it would need. */
static int
refuse_shard(const struct chp_pipeline *p, uint32_t index, int rc, struct chp_error *error)
{
	struct chp_shard_config config;
	struct chp_shard_bytes bytes;

	fill_shard_config(p, index, "", &config);
	chp_shard_bytes(&config, &bytes);
	return chp_error_set(error, CHP_EXIT_RESOURCE,
			     "shard %u of %u needs %llu MiB in one EAL heap and there is not so much "
			     "(%s): give EAL more memory (-m) or lower keys_max, value_blocks_max, "
			     "log_entries, log_blocks or sessions_max",
			     index, p->cluster.shards, (unsigned long long)(bytes.total >> 20) + 1,
			     rte_strerror(-rc));
}

static int
build_views(struct chp_shard_stage *s)
{
	ssize_t bytes = rte_ring_get_memsize_elem(sizeof(struct chp_life_view), 2 * CHP_VIEW_RING);

	CHP_ASSERT(bytes > 0);
	s->views = rte_zmalloc(NULL, (size_t)bytes, RTE_CACHE_LINE_SIZE);
	if (s->views == NULL)
		return -ENOMEM;
	return rte_ring_init(s->views, "views", CHP_VIEW_RING,
			     RING_F_SP_ENQ | RING_F_SC_DEQ | RING_F_EXACT_SZ);
}

static int
build_shard(struct chp_pipeline *p, uint32_t index, struct chp_error *error)
{
	const struct chp_cluster_config *c = &p->cluster;
	struct chp_shard_stage *s = &p->shard[index];
	uint32_t lcore = lcore_of(p, CHP_STAGE_SHARD, index);
	int rc;

	s->p = p;
	s->lcore = &p->lcore[lcore];
	s->shard = index;
	s->n_rx = p->node.n_rx;
	s->native = (struct chp_native){
		.datagram = s->datagram,
		.cluster_hash = c->hash,
		.shard = index,
		.shards = c->shards,
		.hash_seed = c->hash_seed,
		.key_bytes_max = c->key_bytes_max,
		.value_bytes_max = c->value_bytes_max,
		.node = p->node.node,
	};
	if (chp_protocol_find(c->protocol) == NULL)
		return chp_error_set(error, CHP_EXIT_USAGE, "there is no protocol \"%s\"", c->protocol);
	if (chp_application_find(c->application) == NULL)
		return chp_error_set(error, CHP_EXIT_USAGE, "there is no application \"%s\"", c->application);
	rc = chp_shard_stage_begin(s);
	if (rc != 0)
		return refuse_shard(p, index, rc, error);
	if (chp_shard_buffers_min(s->core) > CHP_SPARE_PEER)
		return chp_error_set(error, CHP_EXIT_USAGE, "%u members are too many for a shard: it wants %u "
				     "packets at once and has %u", c->n_members,
				     chp_shard_buffers_min(s->core), CHP_SPARE_PEER);
	if (build_views(s) != 0 ||
	    connect_tx(p, &s->to_tx, lcore, chp_node_tx_of_shard(&p->node, index)) != 0)
		return chp_error_set(error, CHP_EXIT_RESOURCE,
				     "no memory for the rings of shard %u: give EAL more memory (-m)", index);
	return 0;
}

static int
build_host(struct chp_pipeline *p)
{
	uint32_t lcore;
	uint64_t here = 0;

	if (!p->cluster.hosts)
		return 0;
	lcore = lcore_of(p, CHP_STAGE_HOST, 0);
	for (uint32_t i = 0; i < p->cluster.shards; i++)
		here |= lcore_of(p, CHP_STAGE_SHARD, i) == lcore ? chp_bit(i) : 0;
	p->host = rte_zmalloc(NULL, sizeof(*p->host), CHP_CACHE_LINE);
	return p->host != NULL ? chp_host_stage_init(p->host, p, lcore, here) : -ENOMEM;
}

/* Peers are asked for at their own address, or at the gateway's when they are in another network. */
static void
build_neighbours(struct chp_pipeline *p)
{
	const struct chp_cluster_config *c = &p->cluster;
	uint32_t mask = UINT32_MAX << (32 - p->node.prefix_len);
	uint32_t own = c->member[p->node.node].address;

	chp_neighbours_init(&p->neighbours);
	for (uint32_t i = 0; i < c->n_members; i++) {
		uint32_t a = c->member[i].address;

		if (i != p->node.node)
			chp_neighbours_add(&p->neighbours, i,
					   (a & mask) == (own & mask) ? a : p->node.gateway, p->start_ns);
	}
}

static int
build_control(struct chp_pipeline *p)
{
	struct chp_control *s = p->control;
	uint32_t lcore = lcore_of(p, CHP_STAGE_CONTROL, 0);
	struct chp_membership_config m = {
		.cluster_hash = p->cluster.hash,
		.self = p->node.node,
		.n_nodes = p->cluster.n_members,
		.payload_bytes = p->payload_bytes_max,
		.incarnation = p->config.incarnation,
		.bootstrap = p->config.bootstrap,
		.suspect_ns = p->node.suspect_ns,
		.lease_ns = p->node.lease_ns,
		.clock_drift_ppm = p->node.clock_drift_ppm,
		.keeps_members = !chp_pipeline_is_fenced(p),
		.has_hosts = p->cluster.hosts,
		.host_grace_ns = p->cluster.host_grace_ns,
		.leave_fill_ppm = p->cluster.leave_fill_percent * UINT64_C(10000),
	};

	s->p = p;
	s->lcore = &p->lcore[lcore];
	for (uint32_t i = 0; i < p->cluster.n_members; i++)
		m.address[i] = p->cluster.member[i].address;
	chp_membership_init(&s->membership, &m, p->start_ns);
	for (uint32_t i = 0; i < p->cluster.shards; i++) {
		s->given[i].life = s->membership.lives;
		p->shard[i].life = s->membership.lives;
		atomic_store_explicit(&p->shard[i].told, (uint64_t)s->membership.lives << 1,
				      memory_order_relaxed);
	}
	s->report = rte_zmalloc(NULL, p->cluster.shards * sizeof(*s->report), CHP_CACHE_LINE);
	if (s->report == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < CHP_TEXTS; i++) {
		s->text[i].text = rte_zmalloc(NULL, CHP_TEXT_BYTES, CHP_CACHE_LINE);
		if (s->text[i].text == NULL)
			return -ENOMEM;
	}
	return connect_tx(p, &s->to_tx, lcore, tx_of(p, lcore, 0));
}

static struct rte_mempool *
build_pool(const struct chp_pipeline *p, const char *what, uint32_t mbufs, struct chp_error *error)
{
	char name[RTE_MEMPOOL_NAMESIZE];
	struct rte_mempool *mp;

	(void)snprintf(name, sizeof(name), "%s.%s", p->name, what);
	/* Main and the lcores each have a cache. */
	mp = chp_pool_create(name, mbufs, p->node.n_lcores + 1, p->cluster.mtu,
			     rte_eth_dev_socket_id(p->config.port_id));
	if (mp == NULL)
		(void)chp_error_set(error, CHP_EXIT_RESOURCE,
				    "no memory for the pool \"%s\" of %u mbufs (%s): give EAL more memory "
				    "(-m) or make the rings of the node file smaller",
				    what, mbufs, rte_strerror(rte_errno));
	return mp;
}

/*
 * SAFETY 15: the configured pools cover queues, rings and bursts, or nothing starts. What only this program
 * knows of comes on top: arrays between stages of one lcore, packets delayed on purpose, and the copies that
 * an AF_XDP port takes from the RX pool for what it sends.
 */
static int
build_pools(struct chp_pipeline *p, struct chp_error *error)
{
	static const char *const what[] = { "rx", "tx", "control" };
	const struct chp_node_config *n = &p->node;
	uint32_t have[] = { n->rx_pool, n->tx_pool, n->control_pool };
	uint32_t delayed = CHP_IMPAIR_DELAYED_MAX * (n->n_rx + n->n_tx);
	uint32_t local = 2 * CHP_LOCAL_QUEUE * p->cluster.shards * n->n_rx;

	for (uint32_t i = 0; i < CHP_ARRAY_LEN(have); i++) {
		uint32_t need = chp_node_pool_min(&p->cluster, n, (enum chp_pool)i);

		if (have[i] < need)
			return chp_error_set(error, CHP_EXIT_RESOURCE,
					     "the pool \"%s\" has %u mbufs and needs at least %u for its "
					     "queues, rings and bursts: raise pools.%s",
					     what[i], have[i], need, what[i]);
	}
	p->rx_pool = build_pool(p, "rx",
				n->rx_pool + n->n_tx * n->tx_ring + local + delayed +
					2 * CHP_CONTROL_RING * n->n_rx,
				error);
	p->tx_pool = p->rx_pool != NULL ? build_pool(p, "tx", n->tx_pool + delayed, error) : NULL;
	p->control_pool =
		p->tx_pool != NULL ? build_pool(p, "control", n->control_pool + delayed, error) : NULL;
	return p->control_pool != NULL ? 0 : -1;
}

static int
build_stages(struct chp_pipeline *p, struct chp_error *error)
{
	int rc = 0;

	p->lcore = rte_zmalloc(NULL, p->node.n_lcores * sizeof(*p->lcore), CHP_CACHE_LINE);
	p->rx = rte_zmalloc(NULL, p->node.n_rx * sizeof(*p->rx), CHP_CACHE_LINE);
	p->shard = rte_zmalloc(NULL, p->cluster.shards * sizeof(*p->shard), CHP_CACHE_LINE);
	p->tx = rte_zmalloc(NULL, p->node.n_tx * sizeof(*p->tx), CHP_CACHE_LINE);
	p->control = rte_zmalloc(NULL, sizeof(*p->control), CHP_CACHE_LINE);
	if (p->lcore == NULL || p->rx == NULL || p->shard == NULL || p->tx == NULL || p->control == NULL)
		rc = -ENOMEM;
	for (uint32_t i = 0; i < p->node.n_tx && rc == 0; i++)
		rc = build_tx(p, i);
	for (uint32_t i = 0; i < p->cluster.shards && rc == 0; i++) {
		if (build_shard(p, i, error) != 0)
			return -1;
	}
	if (rc == 0)
		rc = build_host(p);
	if (rc == 0)
		rc = build_control(p);
	for (uint32_t i = 0; i < p->node.n_rx && rc == 0; i++)
		rc = build_rx(p, i);
	if (rc != 0)
		return chp_error_set(error, CHP_EXIT_RESOURCE,
				     "no memory for stages and rings (%s): give EAL more memory (-m)",
				     rte_strerror(-rc));
	return 0;
}

struct chp_pipeline *
chp_pipeline_create(const struct chp_pipeline_config *config, struct chp_error *error)
{
	struct chp_pipeline *p = rte_zmalloc(NULL, sizeof(*p), CHP_CACHE_LINE);

	if (p == NULL) {
		(void)chp_error_set(error, CHP_EXIT_RESOURCE, "no memory: give EAL more (-m)");
		return NULL;
	}
	CHP_ASSERT(config->incarnation != 0);
	p->config = *config;
	p->cluster = *config->cluster;
	p->node = *config->node;
	p->config.cluster = &p->cluster;
	p->config.node = &p->node;
	CHP_ASSERT_OP(strlen(config->name), <=, 8u);
	(void)snprintf(p->name, sizeof(p->name), "%s", config->name);
	p->config.name = p->name;
	p->payload_bytes_max = p->cluster.mtu - CHP_IP_UDP_BYTES;
	p->ports_shards = chp_pow2_up(p->cluster.shards);
	chp_clock_init(&p->clock);
	p->start_ns = chp_clock_ns(&p->clock);
	build_neighbours(p);
	if (build_pools(p, error) != 0 || build_stages(p, error) != 0 ||
	    chp_port_start(&p->port, config->port_id, &p->cluster, &p->node, p->rx_pool, error) != 0 ||
	    (p->host != NULL && chp_host_stage_open(p->host, config->channel, error) != 0)) {
		chp_pipeline_destroy(p);
		return NULL;
	}
	return p;
}

/* ------------------------------------------------------------------ taking apart */

static void
destroy_rx(struct chp_pipeline *p, struct chp_rx *s)
{
	for (uint32_t i = 0; i < p->cluster.shards; i++) {
		chp_queue_fini(&s->peers[i].queue);
		chp_queue_fini(&s->clients[i].queue);
	}
	chp_queue_fini(&s->urgent);
	chp_queue_fini(&s->ordinary);
	chp_queue_fini(&s->to_tx);
	if (s->delayed != NULL)
		chp_delayed_fini(s->delayed);
	rte_free(s->delayed);
	rte_free(s->paused);
}

static void
destroy_control(struct chp_control *s)
{
	chp_queue_fini(&s->to_tx);
	for (uint32_t i = 0; i < CHP_TEXTS; i++)
		rte_free(s->text[i].text);
	rte_free(s->report);
	rte_free(s);
}

void
chp_pipeline_destroy(struct chp_pipeline *p)
{
	if (p == NULL)
		return;
	chp_port_stop(&p->port);
	/* Its queues hold mbufs until it is closed, and rte_eal_cleanup would do that when their pools are gone. */
	if (!p->config.keep_port)
		(void)rte_eth_dev_close(p->config.port_id);
	for (uint32_t i = 0; p->rx != NULL && i < p->node.n_rx; i++)
		destroy_rx(p, &p->rx[i]);
	for (uint32_t i = 0; p->shard != NULL && i < p->cluster.shards; i++)
		chp_shard_stage_fini(&p->shard[i]);
	if (p->host != NULL)
		chp_host_stage_fini(p->host);
	if (p->control != NULL)
		destroy_control(p->control);
	for (uint32_t i = 0; p->tx != NULL && i < p->node.n_tx; i++)
		chp_tx_fini(&p->tx[i]);
	rte_free(p->host);
	rte_free(p->rx);
	rte_free(p->shard);
	rte_free(p->tx);
	rte_free(p->lcore);
	rte_mempool_free(p->rx_pool);
	rte_mempool_free(p->tx_pool);
	rte_mempool_free(p->control_pool);
	rte_free(p);
}

/* ------------------------------------------------------------------ running */

static bool
poll_stage(struct chp_pipeline *p, const struct chp_stage_config *s)
{
	switch (s->kind) {
	case CHP_STAGE_RX:
		return chp_rx_poll(&p->rx[s->index]);
	case CHP_STAGE_SHARD:
		return chp_shard_poll(&p->shard[s->index]);
	case CHP_STAGE_TX:
		return chp_tx_poll(&p->tx[s->index]);
	case CHP_STAGE_CONTROL:
		return chp_control_poll(p->control);
	case CHP_STAGE_HOST:
		return chp_host_poll(p->host);
	}
	return false;
}

bool
chp_pipeline_poll(struct chp_pipeline *p, uint32_t index)
{
	const struct chp_lcore_config *config = &p->node.lcore[index];
	struct chp_lcore *l = &p->lcore[index];
	uint64_t begin = rte_rdtsc();
	bool work = false;

	l->mark = begin;
	l->wake_ns = CHP_NEVER;
	memset(l->lap, 0, sizeof(l->lap));
	for (uint32_t i = 0; i < config->n_stages; i++)
		work |= poll_stage(p, &config->stage[i]);
	if (!work) {
		chp_count_cycles(&l->counters, CHP_CYCLES_IDLE, l->mark - begin);
		return false;
	}
	for (uint32_t i = 0; i < CHP_CYCLES_IDLE; i++)
		chp_count_cycles(&l->counters, (enum chp_cycles)i, l->lap[i]);
	return true;
}

/* Nothing to do: what the node file says, and never beyond the next deadline. */
static void
idle(struct chp_pipeline *p, const struct chp_lcore *l, uint32_t empty_polls, uint64_t *sleep_ns)
{
	struct timespec t = { 0 };
	uint64_t now_ns, ns;

	if (p->node.idle == CHP_IDLE_SPIN) {
		rte_pause();
		return;
	}
	if (p->node.idle == CHP_IDLE_YIELD || empty_polls < IDLE_YIELDS) {
		(void)sched_yield();
		return;
	}
	now_ns = chp_clock_ns(&p->clock);
	ns = chp_min_u64(*sleep_ns, l->wake_ns > now_ns ? l->wake_ns - now_ns : 0);
	*sleep_ns = chp_min_u64(2 * *sleep_ns, p->node.idle_sleep_ns);
	if (ns == 0)
		return;
	t.tv_nsec = (long)ns;
	(void)nanosleep(&t, NULL);
}

void
chp_pipeline_run(struct chp_pipeline *p, uint32_t index)
{
	const struct chp_lcore_config *config = &p->node.lcore[index];
	struct chp_lcore *l = &p->lcore[index];
	uint64_t sleep_ns = IDLE_SLEEP_NS_MIN;
	uint32_t empty_polls = 0;

	(void)prctl(PR_SET_TIMERSLACK, 1); /* a sleep of 2 us takes 50 us more otherwise */
	while (chp_pipeline_state_of(p) != CHP_PIPELINE_STOPPED) {
		uint64_t begin;

		if (chp_pipeline_poll(p, index)) {
			empty_polls = 0;
			sleep_ns = IDLE_SLEEP_NS_MIN;
			continue;
		}
		begin = l->mark;
		idle(p, l, ++empty_polls, &sleep_ns);
		chp_count_cycles(&l->counters, CHP_CYCLES_IDLE, rte_rdtsc() - begin);
	}
	for (uint32_t i = 0; i < LAST_POLLS; i++) {
		for (uint32_t j = 0; j < config->n_stages; j++) {
			if (config->stage[j].kind == CHP_STAGE_TX)
				(void)chp_tx_poll(&p->tx[config->stage[j].index]);
		}
	}
}

/* ------------------------------------------------------------------ from outside */

void
chp_pipeline_stop(struct chp_pipeline *p)
{
	atomic_store_explicit(&p->stop_asked, true, memory_order_relaxed);
}

bool
chp_pipeline_is_stopped(const struct chp_pipeline *p)
{
	return chp_pipeline_state_of(p) == CHP_PIPELINE_STOPPED;
}

int
chp_pipeline_exit_code(const struct chp_pipeline *p)
{
	return atomic_load_explicit(&p->exit_code, memory_order_relaxed);
}

void
chp_pipeline_cycles(const struct chp_pipeline *p, uint32_t index, uint64_t ticks[CHP_CYCLES_COUNT])
{
	CHP_ASSERT_OP(index, <, p->node.n_lcores);
	for (uint32_t i = 0; i < CHP_CYCLES_COUNT; i++)
		ticks[i] = atomic_load_explicit(&p->lcore[index].counters.cycles[i],
						memory_order_relaxed);
}

uint64_t
chp_pipeline_count(const struct chp_pipeline *p, enum chp_pipeline_counter which)
{
	uint64_t sum = 0;

	CHP_ASSERT_OP(which, <, CHP_COUNT_COUNT);
	for (uint32_t i = 0; i < p->node.n_lcores; i++)
		sum += atomic_load_explicit(&p->lcore[i].counters.count[which], memory_order_relaxed);
	return sum;
}

void
chp_pipeline_impair(struct chp_pipeline *p, const struct chp_impairment *to)
{
	chp_impair_set(&p->impair, to);
}

bool
chp_pipeline_is_serving(const struct chp_pipeline *p)
{
	if (!chp_pipeline_is_fenced(p)) {
		for (uint32_t i = 0; i < p->cluster.shards; i++) {
			if (!atomic_load_explicit(&p->shard[i].serves, memory_order_acquire))
				return false;
		}
		return true;
	}
	return chp_clock_ns(&p->clock) < atomic_load_explicit(&p->lease_until_ns, memory_order_acquire);
}

struct chp_shard *
chp_pipeline_shard(struct chp_pipeline *p, uint32_t shard)
{
	CHP_ASSERT_OP(shard, <, p->cluster.shards);
	return p->shard[shard].core;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * control.c - the control stage: membership, neighbours, echo, info and status, the orderly stop.
 */
#include "base/assert.h"
#include "pipeline/stages.h"

#include <rte_errno.h>

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* The least size of an Ethernet frame without its checksum: not every driver pads. */
#define ETHER_BYTES_MIN 60u
/* Packets that membership may send in one iteration: one of each type to each peer would be too many. */
#define MEMBERSHIP_BURST 64u
/* After everything is drained, TX stages get this long to send it. */
#define QUIET_NS (5 * CHP_NS_PER_MS)

static void
drop(struct chp_control *s, struct rte_mbuf *m, enum chp_pipeline_counter why)
{
	chp_count(&s->lcore->counters, why, 1);
	rte_pktmbuf_free(m);
}

static bool
to_tx(struct chp_control *s, struct rte_mbuf *m, uint32_t tag)
{
	m->hash.usr = tag;
	if (chp_queue_put(&s->to_tx, &m, 1) == 1)
		return true;
	drop(s, m, CHP_COUNT_drop_tx_ring);
	return false;
}

/* A complete frame, padded to what Ethernet asks for. */
static bool
frame_to_tx(struct chp_control *s, struct rte_mbuf *m, uint32_t len)
{
	uint8_t *frame = rte_pktmbuf_mtod(m, uint8_t *);

	if (len < ETHER_BYTES_MIN) {
		memset(frame + len, 0, ETHER_BYTES_MIN - len);
		len = ETHER_BYTES_MIN;
	}
	m->data_len = (uint16_t)len;
	m->pkt_len = len;
	return to_tx(s, m, chp_tag(CHP_TAG_FRAME, 0, 0));
}

__attribute__((format(printf, 2, 3))) static void
report(struct chp_control *s, const char *format, ...)
{
	const struct chp_pipeline_config *c = &s->p->config;
	char line[256];
	va_list args;

	if (c->report == NULL)
		return;
	va_start(args, format);
	(void)vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	c->report(c->report_context, line);
}

/* ------------------------------------------------------------------ neighbours */

/*
 * Somebody else said that our address is theirs, and whoever heard it sends them what is for us. Say the
 * opposite at once (RFC 5227): the others must not lose a member of the view because a second process was
 * started with its node id. Only the member does: who waits to be admitted is the one who is wrong here.
 */
static bool
defend(struct chp_control *s, struct rte_mbuf *m, uint64_t now_ns)
{
	const struct chp_frame_from *self = &s->p->port.self;

	if (s->membership.state != CHP_MEMBERSHIP_MEMBER || now_ns < s->defend_at_ns)
		return false;
	s->defend_at_ns = now_ns + CHP_ARP_DEFEND_NS;
	chp_frame_arp(rte_pktmbuf_mtod(m, void *), CHP_ARP_REQUEST, self, NULL, self->address);
	if (frame_to_tx(s, m, sizeof(struct chp_arp)))
		chp_count(&s->lcore->counters, CHP_COUNT_arp_requests, 1);
	return true;
}

static void
on_arp(struct chp_control *s, struct rte_mbuf *m, uint64_t now_ns)
{
	struct chp_pipeline *p = s->p;
	const struct chp_frame_from *self = &p->port.self;
	struct chp_arp *a = rte_pktmbuf_mtod(m, struct chp_arp *);
	uint32_t sender = chp_be32(a->sender_ip);
	uint8_t mac[CHP_MAC_BYTES];

	memcpy(mac, a->sender_mac, sizeof(mac));
	if (sender == self->address && memcmp(mac, self->mac, sizeof(mac)) != 0) {
		chp_count(&s->lcore->counters, CHP_COUNT_arp_conflicts, 1);
		if (!s->conflict_reported)
			report(s,
			       "another host with MAC address %02x:%02x:%02x:%02x:%02x:%02x uses this node's "
			       "address: give one of them another address",
			       mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
		s->conflict_reported = true;
		if (defend(s, m, now_ns))
			return;
	} else if (chp_neighbours_learn(&p->neighbours, sender, mac, now_ns)) {
		chp_count(&s->lcore->counters, CHP_COUNT_arp_learned, 1);
	}
	if (a->operation == chp_be16(CHP_ARP_REQUEST) && chp_be32(a->target_ip) == self->address &&
	    sender != self->address) {
		chp_frame_arp(a, CHP_ARP_REPLY, self, mac, sender);
		if (frame_to_tx(s, m, sizeof(*a)))
			chp_count(&s->lcore->counters, CHP_COUNT_arp_replies, 1);
		return;
	}
	rte_pktmbuf_free(m);
}

static void
ask_neighbours(struct chp_control *s, uint64_t now_ns)
{
	const struct chp_neighbour *e;

	while ((e = chp_neighbours_ask(&s->p->neighbours, now_ns)) != NULL) {
		struct rte_mbuf *m = chp_mbuf_take(s->p->control_pool);

		if (m == NULL) {
			chp_count(&s->lcore->counters, CHP_COUNT_drop_no_mbuf, 1);
			return;
		}
		chp_frame_arp(rte_pktmbuf_mtod(m, void *), CHP_ARP_REQUEST, &s->p->port.self,
			      e->known && e->unanswered <= CHP_ARP_TRIES ? e->mac : NULL, e->ip);
		if (frame_to_tx(s, m, sizeof(struct chp_arp)))
			chp_count(&s->lcore->counters, CHP_COUNT_arp_requests, 1);
	}
}

/* ------------------------------------------------------------------ what shards must know */

/* Whether every shard has told that it is of the present life, and if `copied`, that its copy is complete. */
static bool
all_told(const struct chp_control *s, bool copied)
{
	uint64_t want = (uint64_t)s->membership.lives << 1 | (copied ? 1 : 0);

	for (uint32_t i = 0; i < s->p->cluster.shards; i++) {
		if (atomic_load_explicit(&s->p->shard[i].told, memory_order_acquire) < want)
			return false;
	}
	return true;
}

/*
 * The view in force and the life it belongs to, and the first view that wants to be accepted, go to every shard that
 * does not have them yet. Only the newest matters: what finds no room in a ring is tried again later, if it is still
 * the newest then.
 */
static bool
give_view(struct chp_control *s)
{
	struct chp_pipeline *p = s->p;
	const struct chp_view *v = chp_membership_view(&s->membership);
	struct chp_life_view next = {
		.life = s->membership.lives,
		.founding = chp_membership_founding(&s->membership),
	};
	bool given = true;

	if (v != NULL)
		next.view = *v;
	for (uint32_t i = 0; i < p->cluster.shards; i++) {
		if (s->given[i].life == next.life && s->given[i].epoch == next.view.epoch &&
		    s->given[i].founding == next.founding)
			continue;
		if (rte_ring_sp_enqueue_elem(p->shard[i].views, &next, sizeof(next)) != 0) {
			given = false;
			continue;
		}
		s->given[i].life = next.life;
		s->given[i].epoch = next.view.epoch;
		s->given[i].founding = next.founding;
	}
	atomic_store_explicit(&p->epoch, next.view.epoch, memory_order_release);
	return given;
}

/*
 * After every event of membership: the lease, then the view. In this order, because a shard that enters the
 * next life must not find a lease of the one before; see struct chp_pipeline.
 */
static bool
publish(struct chp_control *s)
{
	uint64_t lease_until_ns = chp_membership_lease_until_ns(&s->membership);

	if (lease_until_ns != 0 && !all_told(s, false))
		lease_until_ns = 0;
	atomic_store_explicit(&s->p->lease_until_ns, lease_until_ns, memory_order_release);
	return give_view(s);
}

/*
 * A learner whose shards have all that the voters have may become a voter (SAFETY 9); a source whose shards have
 * reconciled what its host holds is none any more (SAFETY 34). True: not that far yet.
 */
static bool
watch_copy(struct chp_control *s, uint64_t now_ns)
{
	struct chp_membership *m = &s->membership;
	const struct chp_view *v = chp_membership_view(m);

	if (v == NULL || ((v->learners | v->sources) & chp_bit(s->p->node.node)) == 0 || s->ready_life == m->lives)
		return false;
	if (!all_told(s, true))
		return true;
	s->ready_life = m->lives;
	chp_membership_set_ready(m, now_ns, true);
	return false;
}

/*
 * What the shards say of their host. Only those of the present life: until all have told that they are, and reported
 * since, membership goes by what it knows, which is nothing after a rebirth.
 */
static void
watch_hosts(struct chp_control *s, uint64_t now_ns)
{
	struct chp_membership_host host = { .shards = 0 };

	if (!s->p->cluster.hosts || !all_told(s, false))
		return;
	for (uint32_t i = 0; i < s->p->cluster.shards; i++) {
		if (s->report[i].life != s->membership.lives)
			return;
		chp_membership_host_add(&host, &s->report[i].host);
	}
	chp_membership_set_host(&s->membership, now_ns, &host);
}

/* A shard that could not begin anew leaves nothing to do but to end. */
static void
watch_failures(struct chp_control *s)
{
	for (uint32_t i = 0; i < s->p->cluster.shards && !s->failure_reported; i++) {
		int rc = atomic_load_explicit(&s->p->shard[i].failed, memory_order_acquire);

		if (rc == 0)
			continue;
		s->failure_reported = true;
		report(s, "shard %u cannot begin anew as a new incarnation (%s): give EAL more memory (-m)", i,
		       rte_strerror(-rc));
		atomic_store_explicit(&s->p->exit_code, CHP_EXIT_RESOURCE, memory_order_relaxed);
		chp_pipeline_stop(s->p);
	}
}

/* ------------------------------------------------------------------ membership */

/* The member that a frame came from, by its address; CHP_MEMBERSHIP_NO_MEMBER. */
static uint32_t
source_of(const struct chp_pipeline *p, const void *frame)
{
	const struct chp_cluster_config *c = &p->cluster;
	const struct chp_frame *f = frame;
	bool direct = chp_frame_is_direct(frame);
	uint8_t mac[CHP_MAC_BYTES];

	for (uint32_t i = 0; i < c->n_members; i++) {
		if (direct ? chp_neighbours_mac(&p->neighbours, i, mac) &&
				     memcmp(mac, f->ether.from, sizeof(mac)) == 0
			   : c->member[i].address == chp_be32(f->ip.from))
			return i;
	}
	return CHP_MEMBERSHIP_NO_MEMBER;
}

/* Members that send in another way than this node. They are understood; but somebody may have meant it otherwise. */
static void
watch_way(struct chp_control *s, uint32_t from, bool direct)
{
	const struct chp_pipeline *p = s->p;
	uint64_t bit = from != CHP_MEMBERSHIP_NO_MEMBER ? chp_bit(from) : 0;

	if (direct == (p->node.peers == CHP_PEERS_ETHERNET)) {
		s->other_way &= ~bit;
		return;
	}
	if ((s->other_way & bit) == bit)
		return;
	s->other_way |= bit;
	report(s,
	       "%s sends to its peers over %s, this node over %s: works, but is \"peers\" in the node files meant so?",
	       p->cluster.member[from].name, direct ? "raw Ethernet" : "UDP", direct ? "UDP" : "raw Ethernet");
}

static void
on_membership(struct chp_control *s, struct rte_mbuf *m, uint64_t now_ns)
{
	const uint8_t *frame = rte_pktmbuf_mtod(m, const uint8_t *), *data;
	bool direct = chp_frame_is_direct(frame);
	uint32_t from = source_of(s->p, frame), len;

	/*
	 * A MAC address that ARP has not found yet: a member whose port was replaced, until it is asked for anew. What
	 * cannot be answered need not be heard, and is no reason to tell people of a stranger.
	 */
	if (direct && from == CHP_MEMBERSHIP_NO_MEMBER) {
		drop(s, m, CHP_COUNT_drop_node);
		return;
	}
	data = chp_frame_packet(frame, &len);
	watch_way(s, from, direct);
	chp_membership_receive(&s->membership, now_ns, data, len, from);
	(void)publish(s);
	rte_pktmbuf_free(m);
}

static void
send_membership(struct chp_control *s, uint64_t now_ns)
{
	for (uint32_t i = 0; i < MEMBERSHIP_BURST; i++) {
		struct rte_mbuf *m;
		uint32_t len, peer = 0;

		if (chp_queue_room(&s->to_tx) == 0)
			return;
		m = chp_mbuf_take(s->p->control_pool);
		if (m == NULL) {
			chp_count(&s->lcore->counters, CHP_COUNT_drop_no_mbuf, 1);
			return;
		}
		len = chp_membership_transmit(&s->membership, now_ns,
					      rte_pktmbuf_mtod_offset(m, uint8_t *, CHP_FRAME_BYTES),
					      &peer);
		if (len == 0) {
			rte_pktmbuf_free(m);
			return;
		}
		chp_mbuf_set_payload(m, len);
		(void)to_tx(s, m, chp_tag(CHP_TAG_CONTROL, peer, s->p->ports_shards));
	}
}

static void
watch_membership(struct chp_control *s)
{
	const char *line;

	while ((line = chp_membership_report(&s->membership)) != NULL)
		report(s, "%s", line);
	if (s->membership.state == CHP_MEMBERSHIP_REFUSED &&
	    atomic_load_explicit(&s->p->exit_code, memory_order_relaxed) == CHP_EXIT_OK) {
		report(s, "refused by the cluster: %s", s->membership.reason);
		atomic_store_explicit(&s->p->exit_code, CHP_EXIT_REFUSED, memory_order_relaxed);
		chp_pipeline_stop(s->p);
	}
}

/*
 * Let membership act. True: it waits for the shards, so look again soon.
 *
 * As long as a shard still holds the state of an earlier life, this process says nothing to anybody: once it is
 * admitted, every write of the cluster waits for its acknowledgement, and making a shard takes a while.
 */
static bool
run_membership(struct chp_control *s, uint64_t now_ns)
{
	bool waits;

	watch_hosts(s, now_ns);
	chp_membership_tick(&s->membership, now_ns);
	waits = watch_copy(s, now_ns);
	waits |= !publish(s);
	if (all_told(s, false))
		send_membership(s, now_ns);
	else
		waits = true;
	watch_failures(s);
	watch_membership(s);
	return waits;
}

/* ------------------------------------------------------------------ the orderly stop */

static bool
all_drained(const struct chp_control *s)
{
	for (uint32_t i = 0; i < s->p->cluster.shards; i++) {
		if (!atomic_load_explicit(&s->p->shard[i].drained, memory_order_acquire))
			return false;
	}
	return true;
}

static void
watch_stop(struct chp_control *s, uint64_t now_ns)
{
	struct chp_pipeline *p = s->p;

	if (s->stop_ns == 0) {
		if (!atomic_load_explicit(&p->stop_asked, memory_order_relaxed))
			return;
		s->stop_ns = now_ns + CHP_STOP_NS;
		atomic_store_explicit(&p->state, CHP_PIPELINE_DRAINING, memory_order_release);
		return;
	}
	if (!all_drained(s))
		s->quiet_ns = 0;
	else if (s->quiet_ns == 0)
		s->quiet_ns = now_ns;
	if (now_ns >= s->stop_ns || (s->quiet_ns != 0 && now_ns - s->quiet_ns >= QUIET_NS))
		atomic_store_explicit(&p->state, CHP_PIPELINE_STOPPED, memory_order_release);
}

/* ------------------------------------------------------------------ the stage */

static void
on_packet(struct chp_control *s, struct rte_mbuf *m)
{
	uint64_t now_ns = chp_clock_ns(&s->p->clock); /* after it was taken (SAFETY 16) */

	switch (chp_tag_kind_of(m)) {
	case CHP_TAG_ARP:
		on_arp(s, m, now_ns);
		break;
	case CHP_TAG_MEMBERSHIP:
		on_membership(s, m, now_ns);
		break;
	case CHP_TAG_ECHO:
		if (frame_to_tx(s, m, chp_frame_echo(rte_pktmbuf_mtod(m, void *), &s->p->port.self)))
			chp_count(&s->lcore->counters, CHP_COUNT_icmp_replies, 1);
		break;
	default:
		CHP_ASSERT_OP(chp_tag_kind_of(m), ==, CHP_TAG_REQUEST);
		if (!chp_control_request(s, m))
			drop(s, m, CHP_COUNT_drop_message);
		else if (to_tx(s, m, chp_tag(CHP_TAG_REPLY, 0, 0)))
			chp_count(&s->lcore->counters, CHP_COUNT_control_requests, 1);
		break;
	}
}

static uint32_t
take(struct chp_control *s, struct chp_queue *const *queue, uint32_t max)
{
	uint32_t n = 0;

	for (uint32_t r = 0; r < s->p->node.n_rx && n < max; r++) {
		struct rte_mbuf *m;

		while (n < max && chp_queue_take(queue[r], &m, 1) == 1) {
			on_packet(s, m);
			n++;
		}
	}
	return n;
}

bool
chp_control_poll(struct chp_control *s)
{
	uint32_t n = take(s, s->urgent, CHP_PORT_BURST);
	uint64_t now_ns;

	n += take(s, s->ordinary, CHP_CONTROL_BURST);
	now_ns = chp_clock_ns(&s->p->clock);
	watch_stop(s, now_ns);
	chp_control_reports(s, now_ns);
	if (n > 0 || now_ns >= s->timer_ns) {
		bool waits = run_membership(s, now_ns);

		ask_neighbours(s, now_ns);
		s->timer_ns = chp_min_u64(chp_membership_wake_ns(&s->membership),
					  chp_neighbours_wake_ns(&s->p->neighbours));
		if (s->p->cluster.hosts)
			s->timer_ns = chp_min_u64(s->timer_ns, s->report_ns);
		if (waits && (s->timer_ns <= now_ns || s->timer_ns > now_ns + CHP_LOOK_NS))
			s->timer_ns = now_ns + CHP_LOOK_NS;
	}
	s->lcore->wake_ns = chp_min_u64(s->lcore->wake_ns, chp_min_u64(s->timer_ns, s->report_ns));
	chp_lap(s->lcore, CHP_CYCLES_REST);
	return n > 0;
}

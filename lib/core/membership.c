/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/membership.h"

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/mutation.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Reports that are made once per member. */
enum report {
	REPORT_CLUSTER = 1u << 0,
	REPORT_VERSION = 1u << 1,
	REPORT_NODE = 1u << 2,
	REPORT_ADDRESS = 1u << 3,
	REPORT_MEMBERS = 1u << 4,
	REPORT_SHORT = 1u << 5,
	REPORT_OUR_SHORT = 1u << 6,
	REPORT_TWO = 1u << 7,
	REPORT_BOOTSTRAP = 1u << 8,
	REPORT_WRITERS = 1u << 9,
	REPORT_GENERATIONS = 1u << 10,
};

#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S (1000 * NS_PER_MS)
/* Who begins the first view. */
#define FOUNDER 0u
/* What part of host_grace_ns a replica waits whose host is away and whose cache holds up the others. */
#define STUCK_SHARE 5u

_Static_assert(CHP_CONTROL_ROUND_MAX == CHP_AGREEMENT_ROUND_MAX, "ballots on the wire and in the agreement");
_Static_assert(CHP_CONTROL_TYPES <= 32, "due is a mask of types");

/* ---- text ---- */

struct node_text {
	char text[48];
};

/* "node 2 (10.99.0.12)" */
static struct node_text
node_text(const struct chp_membership *m, uint32_t node)
{
	struct node_text t;
	uint32_t a = m->config.address[node];

	snprintf(t.text, sizeof(t.text), "node %u (%u.%u.%u.%u)", node, a >> 24, a >> 16 & 255u,
		 a >> 8 & 255u, a & 255u);
	return t;
}

/* "node at 10.99.0.12": what is known of a packet whose contents are not trusted. */
static struct node_text
source_text(const struct chp_membership *m, uint32_t from_address)
{
	struct node_text t;
	uint32_t a;

	if (from_address >= m->config.n_nodes) {
		snprintf(t.text, sizeof(t.text), "a node at an unlisted address");
		return t;
	}
	a = m->config.address[from_address];
	snprintf(t.text, sizeof(t.text), "node at %u.%u.%u.%u", a >> 24, a >> 16 & 255u,
		 a >> 8 & 255u, a & 255u);
	return t;
}

static void __attribute__((format(printf, 2, 3)))
report(struct chp_membership *m, const char *format, ...)
{
	char *line = m->report[m->report_next % CHP_MEMBERSHIP_REPORTS];
	va_list args;

	va_start(args, format);
	vsnprintf(line, CHP_MEMBERSHIP_TEXT_BYTES, format, args);
	va_end(args);
	m->report_next++;
}

/* Whether a report is due for the first time; node may be CHP_MEMBERSHIP_NO_MEMBER. */
static bool
first_report(struct chp_membership *m, uint32_t node, enum report which)
{
	uint32_t *reported = &m->unknown_reported;

	if (node < m->config.n_nodes)
		reported = &m->peer[node].reported;
	if ((*reported & (uint32_t)which) != 0)
		return false;
	*reported |= (uint32_t)which;
	return true;
}

/* Time since; peer_heard may have been told of a moment after this batch's. */
static uint64_t
since(uint64_t at_ns, uint64_t now_ns)
{
	return now_ns > at_ns ? now_ns - at_ns : 0;
}

/* "not heard for 2.1 s" */
static void
silence_text(uint64_t heard_ns, uint64_t now_ns, struct chp_text *t)
{
	uint64_t tenths = since(heard_ns, now_ns) / (100 * NS_PER_MS);

	if (heard_ns == 0)
		chp_text_add(t, "never heard");
	else
		chp_text_add(t, "not heard for %" PRIu64 ".%" PRIu64 " s", tenths / 10, tenths % 10);
}

/* ---- small questions ---- */

static uint64_t
all_members(const struct chp_membership *m)
{
	return UINT64_MAX >> (CHP_NODES_MAX - m->config.n_nodes);
}

static uint64_t
self_bit(const struct chp_membership *m)
{
	return chp_bit(m->config.self);
}

/* Without a view: none. */
static bool
is_live(const struct chp_membership *m, uint32_t node)
{
	return (chp_view_live(&m->view) & chp_bit(node)) != 0;
}

static bool
is_voter(const struct chp_membership *m)
{
	return (m->view.voters & self_bit(m)) != 0;
}

/* A majority of all configured members. */
static uint32_t
majority_of_all(const struct chp_membership *m)
{
	return m->config.n_nodes / 2 + 1;
}

static bool
has_heir(const struct chp_membership *m, uint32_t node)
{
	return (m->heirs & chp_bit(node)) != 0;
}

/* Whether a view has this very process. */
static bool
names_us(const struct chp_membership *m, const struct chp_view *v)
{
	return (chp_view_live(v) & self_bit(m)) != 0 &&
	       v->incarnation[m->config.self] == m->incarnation;
}

static bool
is_recent(uint64_t at_ns, uint64_t now_ns)
{
	return at_ns != 0 && since(at_ns, now_ns) < CHP_MEMBERSHIP_ALIVE_NS;
}

/* Who answers for it that a proposer died: everybody else waits this long before proposing. */
static uint64_t
turn_ns(const struct chp_membership *m)
{
	return m->config.lease_ns + 3 * m->heartbeat_ns;
}

/* Nobody who is in a view was heard for this long: there may be none any more. */
static uint64_t
view_silence_ns(const struct chp_membership *m)
{
	return chp_max_u64(CHP_MEMBERSHIP_ALIVE_NS, 4 * m->config.suspect_ns);
}

/* Whom HELLOs go to: everybody, of a member those outside the view, heirs of silent members too. */
static uint64_t
hello_mask(const struct chp_membership *m)
{
	uint64_t inside = chp_view_live(&m->view) & ~(m->heirs & chp_membership_suspected(m));

	return all_members(m) & ~self_bit(m) & ~inside;
}

/* Whom heartbeats go to: the view; everybody while we want to be seen alive and admitted. */
static uint64_t
heartbeat_mask(const struct chp_membership *m)
{
	if (m->state == CHP_MEMBERSHIP_JOINING)
		return all_members(m) & ~self_bit(m);
	return chp_view_live(&m->view) & ~self_bit(m);
}

/* The longest HELLO interval: who wants to be admitted is in more of a hurry than who is in the view. */
static uint64_t
hello_ns_max(const struct chp_membership *m)
{
	uint64_t ns = m->config.suspect_ns / 4;

	if (m->state != CHP_MEMBERSHIP_JOINING)
		return CHP_MEMBERSHIP_HELLO_NS_MAX;
	return chp_max_u64(CHP_MEMBERSHIP_HELLO_NS_MIN, chp_min_u64(ns, CHP_MEMBERSHIP_HELLO_NS_MAX));
}

static uint64_t
heard_full(const struct chp_membership *m, uint64_t now_ns)
{
	uint64_t mask = self_bit(m);

	for (uint32_t i = 0; i < m->config.n_nodes; i++) {
		const struct chp_membership_peer *p = &m->peer[i];

		/* Heirs are who is told. */
		if (has_heir(m, i)) {
			if (is_recent(m->heir[i].heard_full_ns, now_ns))
				mask |= chp_bit(i);
			continue;
		}
		/* Who admits us knows whether it hears us, but not whether the others do. */
		if (is_recent(p->heard_full_ns, now_ns) &&
		    (m->state != CHP_MEMBERSHIP_JOINING || (p->its_heard_full & self_bit(m)) != 0))
			mask |= chp_bit(i);
	}
	return mask;
}

uint64_t
chp_membership_heard(const struct chp_membership *m, uint64_t now_ns)
{
	uint64_t mask = self_bit(m);

	for (uint32_t i = 0; i < m->config.n_nodes; i++)
		if (is_recent(m->peer[i].heard_ns, now_ns))
			mask |= chp_bit(i);
	return mask;
}

uint64_t
chp_membership_suspected(const struct chp_membership *m)
{
	return m->detector.suspected & chp_view_live(&m->view) & ~self_bit(m);
}

/*
 * With hosts a lease needs, beside a majority of the voters, grants of as many members as are a majority of all
 * configured ones: a cluster of less must not serve, because the others may begin again without it (SAFETY 34).
 */
uint64_t
chp_membership_lease_until_ns(const struct chp_membership *m)
{
	uint64_t until_ns;

	if (!is_voter(m))
		return 0;
	until_ns = chp_lease_until(&m->lease, m->config.self, m->view.voters);
	if (!m->config.has_hosts || CHP_MUTATED(S34_SERVES_IN_MINORITY))
		return until_ns;
	return chp_min_u64(until_ns, chp_lease_until_granted(&m->lease, m->config.self, chp_view_live(&m->view),
							     majority_of_all(m)));
}

static bool
views_equal(const struct chp_view *a, const struct chp_view *b, uint32_t n_nodes)
{
	return a->epoch == b->epoch && a->voters == b->voters && a->learners == b->learners &&
	       a->next_writer == b->next_writer && a->sources == b->sources &&
	       memcmp(a->incarnation, b->incarnation, n_nodes * sizeof(a->incarnation[0])) == 0 &&
	       memcmp(a->writer, b->writer, n_nodes * sizeof(a->writer[0])) == 0;
}

/* What stands between a member and the first view, the plainest obstacle first. */
enum obstacle {
	OBSTACLE_NONE = 0,
	OBSTACLE_NEVER_HEARD,
	OBSTACLE_SILENT,
	OBSTACLE_MEMBERS,
	OBSTACLE_IN_VIEW,
	OBSTACLE_SHORT,
	OBSTACLE_NOT_HEARING_US,
	OBSTACLE_HEARING_US_SHORT,
	OBSTACLE_NO_HOST,
	OBSTACLE_NOT_HEARING_OTHERS,
};

static enum obstacle
obstacle_of(const struct chp_membership *m, uint64_t now_ns, uint32_t node)
{
	const struct chp_membership_peer *p = &m->peer[node];

	if (p->incarnation == 0)
		return OBSTACLE_NEVER_HEARD;
	if (!is_recent(p->heard_ns, now_ns))
		return OBSTACLE_SILENT;
	if (p->members_differ)
		return OBSTACLE_MEMBERS;
	if (p->epoch != 0)
		return OBSTACLE_IN_VIEW;
	if (!is_recent(p->heard_full_ns, now_ns))
		return OBSTACLE_SHORT;
	if (!is_recent(p->hears_us_ns, now_ns))
		return OBSTACLE_NOT_HEARING_US;
	if ((p->its_heard_full & self_bit(m)) == 0)
		return OBSTACLE_HEARING_US_SHORT;
	if (m->config.has_hosts && !p->host.is_there)
		return OBSTACLE_NO_HOST;
	if (p->its_heard_full != all_members(m))
		return OBSTACLE_NOT_HEARING_OTHERS;
	return OBSTACLE_NONE;
}

/* ---- sending ---- */

static uint32_t
due_bit(enum chp_control_type type)
{
	return 1u << type;
}

/* There is news for a peer: say HELLO soon, and often again. */
static void
poke(struct chp_membership *m, uint64_t now_ns, uint32_t node)
{
	struct chp_membership_peer *p = &m->peer[node];

	p->hello_interval_ns = CHP_MEMBERSHIP_HELLO_NS_MIN;
	p->hello_at_ns = chp_min_u64(p->hello_at_ns, now_ns + CHP_MEMBERSHIP_HELLO_NS_MIN);
}

static void
poke_all(struct chp_membership *m, uint64_t now_ns, uint32_t due)
{
	for (uint64_t rest = hello_mask(m); rest != 0; rest &= rest - 1) {
		uint32_t i = chp_first_bit(rest);

		poke(m, now_ns, i);
		m->peer[i].due |= due;
	}
}

static void
send_to(struct chp_membership *m, uint64_t mask, enum chp_control_type type)
{
	for (uint64_t rest = mask & ~self_bit(m); rest != 0; rest &= rest - 1)
		m->peer[chp_first_bit(rest)].due |= due_bit(type);
}

/* It is time for a peer's HELLO and for whatever else it may have missed. */
static void
hello_peer(struct chp_membership *m, uint64_t now_ns, uint32_t node)
{
	struct chp_membership_peer *p = &m->peer[node];
	uint64_t quarter = p->hello_interval_ns / 4;
	uint64_t hears = has_heir(m, node) ? m->heir[node].its_heard_full : p->its_heard_full;

	p->due |= due_bit(CHP_CONTROL_HELLO);
	if ((hears & self_bit(m)) == 0)
		p->due |= due_bit(CHP_CONTROL_HELLO_SHORT);
	if (m->state == CHP_MEMBERSHIP_FORMING && (m->founding_by & self_bit(m)) != 0)
		p->due |= due_bit(CHP_CONTROL_FOUNDING);
	p->hello_at_ns = now_ns + chp_random_range(&m->random, 3 * quarter, 5 * quarter);
	p->hello_interval_ns = chp_min_u64(2 * p->hello_interval_ns, hello_ns_max(m));
}

/* It is time for heartbeats; who has missed the last view gets that too. */
static void
beat(struct chp_membership *m, uint64_t now_ns)
{
	uint64_t mask = heartbeat_mask(m);

	send_to(m, mask, CHP_CONTROL_HEARTBEAT);
	for (uint64_t rest = chp_view_live(&m->view) & mask; rest != 0; rest &= rest - 1) {
		struct chp_membership_peer *p = &m->peer[chp_first_bit(rest)];

		if (p->epoch < m->view.epoch)
			p->due |= due_bit(CHP_CONTROL_DECIDED);
	}
	m->heartbeat_at_ns =
		now_ns + chp_random_range(&m->random, m->heartbeat_ns - m->heartbeat_ns / 4, m->heartbeat_ns);
}

static void
write_header(const struct chp_membership *m, uint32_t node, enum chp_control_type type,
	     struct chp_control_header *h)
{
	*h = (struct chp_control_header){
		.prelude = {
			.magic = CHP_WIRE_MAGIC,
			.version = CHP_WIRE_VERSION,
			.kind = CHP_PACKET_CONTROL,
			.cluster_hash = m->config.cluster_hash,
		},
		.from = (uint8_t)m->config.self,
		.to = (uint8_t)node,
		.type = (uint8_t)type,
		.from_incarnation = m->incarnation,
		.to_incarnation = m->peer[node].incarnation,
		.epoch = m->view.epoch,
	};
}

static void
write_host(const struct chp_membership_host *host, struct chp_control_hello *h)
{
	h->flags |= CHP_HELLO_HOST;
	if (host->has_items)
		h->flags |= CHP_HELLO_ITEMS;
	if (host->is_volatile)
		h->flags |= CHP_HELLO_VOLATILE;
	h->recorded_min = host->recorded_min;
	h->recorded_max = host->recorded_max;
	h->life_max = host->life_max;
}

static uint32_t
write_hello(const struct chp_membership *m, uint64_t now_ns, uint32_t node,
	    enum chp_control_type type, uint8_t *to)
{
	struct chp_control_hello *h = (void *)to;
	uint32_t len = type == CHP_CONTROL_HELLO ? m->config.payload_bytes : (uint32_t)sizeof(*h);

	memset(to, 0, len);
	write_header(m, node, type, &h->header);
	if (has_heir(m, node))
		h->header.to_incarnation = m->heir[node].incarnation;
	h->n_members = (uint8_t)m->config.n_nodes;
	h->flags = m->config.bootstrap ? CHP_HELLO_BOOTSTRAP : 0;
	h->payload_bytes = (uint16_t)m->config.payload_bytes;
	h->members_hash = m->members_hash;
	h->heard = chp_membership_heard(m, now_ns);
	h->heard_full = heard_full(m, now_ns);
	if (m->host.is_there)
		write_host(&m->host, h);
	return len;
}

static uint32_t
write_view(const struct chp_membership *m, uint32_t node, enum chp_control_type type,
	   const struct chp_view *view, uint8_t *to)
{
	struct chp_control_view *v = (void *)to;
	struct chp_control_member *member = (void *)(v + 1);

	memset(v, 0, sizeof(*v));
	write_header(m, node, type, &v->header);
	v->epoch = view->epoch;
	v->voters = view->voters;
	v->learners = view->learners;
	v->next_writer = view->next_writer;
	v->sources = view->sources;
	v->n_members = (uint8_t)m->config.n_nodes;
	for (uint32_t i = 0; i < m->config.n_nodes; i++)
		member[i] = (struct chp_control_member){
			.incarnation = view->incarnation[i],
			.writer = view->writer[i],
		};
	return chp_control_view_bytes(m->config.n_nodes);
}

static uint32_t
write_refused(const struct chp_membership *m, uint64_t now_ns, uint32_t node, uint8_t *to)
{
	const struct chp_membership_peer *p = &m->peer[node];
	struct chp_control_refused *r = (void *)to;

	memset(r, 0, sizeof(*r));
	write_header(m, node, CHP_CONTROL_REFUSED, &r->header);
	r->header.to_incarnation = p->refuse_incarnation;
	r->reason = (uint8_t)p->refuse_reason;
	r->heard_ms = UINT32_MAX;
	if (p->refuse_reason == CHP_REFUSED_ALIVE && p->refuse_heard_ns != 0)
		r->heard_ms = (uint32_t)chp_min_u64(since(p->refuse_heard_ns, now_ns) / NS_PER_MS,
						    UINT32_MAX - 1);
	return sizeof(*r);
}

/*
 * Whether this voter may ask for leases. Not from telling on that it accepted the next view, so that no
 * lease of this one outlives it by more than a lease's length; nor once it has accepted to be dropped.
 */
static bool
may_ask(const struct chp_membership *m)
{
	const struct chp_agreement *a = &m->agreement;

	return is_voter(m) && !m->config.keeps_members && a->told == 0 &&
	       (a->accepted_ballot == 0 || names_us(m, &a->accepted));
}

/*
 * Whether what this source holds is reconciled, or this learner may be a voter: with hosts when its stores have
 * recorded that they have everything. Nobody's has before all is reconciled, and one that may forget need not.
 */
static bool
is_ready(const struct chp_membership *m)
{
	if (!m->ready || (m->view.learners & self_bit(m)) == 0)
		return m->ready && (m->view.sources & self_bit(m)) != 0;
	/* What a log has committed is a majority's; a store counts for what it has. */
	return !m->config.has_hosts || m->config.keeps_members || m->host.is_volatile ||
	       (m->view.sources == 0 && m->host.recorded_min >= m->joined_epoch);
}

/* The lease counts from now, which is before the packet leaves (SAFETY 17, pitfall P12). */
static uint32_t
write_heartbeat(const struct chp_membership *m, uint64_t now_ns, uint32_t node, uint8_t *to)
{
	struct chp_control_heartbeat *h = (void *)to;

	memset(h, 0, sizeof(*h));
	write_header(m, node, CHP_CONTROL_HEARTBEAT, &h->header);
	h->sent_ns = now_ns;
	/* A learner gets none, but says how long its leases will be: who drops it must know (see tell_at_ns). */
	if (may_ask(m) || (!m->config.keeps_members && (m->view.learners & self_bit(m)) != 0))
		h->lease_ns = m->config.lease_ns;
	if (is_ready(m))
		h->flags |= CHP_HEARTBEAT_READY;
	if (m->leaves)
		h->flags |= CHP_HEARTBEAT_LEAVES;
	if (since(chp_max_u64(m->peer[node].heard_ns, m->entered_ns), now_ns) < m->config.suspect_ns / 2)
		h->flags |= CHP_HEARTBEAT_HEARS;
	return sizeof(*h);
}

static uint32_t
write_grant(const struct chp_membership *m, uint32_t node, uint8_t *to)
{
	const struct chp_membership_peer *p = &m->peer[node];
	struct chp_control_grant *g = (void *)to;

	memset(g, 0, sizeof(*g));
	write_header(m, node, CHP_CONTROL_GRANT, &g->header);
	g->sent_ns = p->grant_sent_ns;
	g->lease_ns = p->grant_lease_ns;
	return sizeof(*g);
}

static uint32_t
write_ballot(const struct chp_membership *m, uint32_t node, enum chp_control_type type,
	     uint64_t ballot, uint8_t *to)
{
	struct chp_control_ballot *b = (void *)to;

	memset(b, 0, sizeof(*b));
	write_header(m, node, type, &b->header);
	b->epoch = m->agreement.epoch;
	b->ballot = ballot;
	return sizeof(*b);
}

/* What an acceptor says to a proposer, as things are now: a promise may have been overtaken meanwhile. */
static uint32_t
write_promise(const struct chp_membership *m, uint32_t node, uint8_t *to)
{
	const struct chp_agreement *a = &m->agreement;
	struct chp_control_view *v = (void *)to;
	uint32_t len;

	if (chp_ballot_node(a->promised) != node)
		return write_ballot(m, node, CHP_CONTROL_REJECTED, a->promised, to);
	if (a->accepted_ballot == 0)
		return write_ballot(m, node, CHP_CONTROL_PROMISE, a->promised, to);
	len = write_view(m, node, CHP_CONTROL_PROMISE, &a->accepted, to);
	v->ballot = a->promised;
	v->accepted = a->accepted_ballot;
	return len;
}

static uint32_t
write_accept(const struct chp_membership *m, uint32_t node, uint8_t *to)
{
	const struct chp_agreement *a = &m->agreement;
	struct chp_control_view *v = (void *)to;
	uint32_t len = write_view(m, node, CHP_CONTROL_ACCEPT, &a->value, to);

	v->ballot = a->ballot;
	return len;
}

/* Packets say what is so now; 0 when what was to be said is no longer so. */
static uint32_t
write_packet(const struct chp_membership *m, uint64_t now_ns, uint32_t node,
	     enum chp_control_type type, uint8_t *to)
{
	const struct chp_agreement *a = &m->agreement;

	switch (type) {
	case CHP_CONTROL_HELLO:
	case CHP_CONTROL_HELLO_SHORT:
		return write_hello(m, now_ns, node, type, to);
	case CHP_CONTROL_FOUNDING:
		return write_view(m, node, type, &m->founding, to);
	case CHP_CONTROL_DECIDED:
		return write_view(m, node, type, &m->view, to);
	case CHP_CONTROL_REFUSED:
		return write_refused(m, now_ns, node, to);
	case CHP_CONTROL_HEARTBEAT:
		return write_heartbeat(m, now_ns, node, to);
	case CHP_CONTROL_GRANT:
		return write_grant(m, node, to);
	case CHP_CONTROL_PREPARE:
		return a->phase != CHP_AGREEMENT_PREPARING ? 0 : write_ballot(m, node, type, a->ballot, to);
	case CHP_CONTROL_PROMISE:
		return write_promise(m, node, to);
	case CHP_CONTROL_ACCEPT:
		return a->phase != CHP_AGREEMENT_ACCEPTING ? 0 : write_accept(m, node, to);
	case CHP_CONTROL_ACCEPTED:
		return chp_ballot_node(a->told) != node ? 0 : write_ballot(m, node, type, a->told, to);
	case CHP_CONTROL_REJECTED:
		return chp_ballot_node(a->promised) == node ? 0 :
							      write_ballot(m, node, type, a->promised, to);
	case CHP_CONTROL_TYPES:
		break;
	}
	return 0;
}

uint32_t
chp_membership_transmit(struct chp_membership *m, uint64_t now_ns, uint8_t *to, uint32_t *peer)
{
	for (uint32_t i = 0; i < m->config.n_nodes; i++) {
		uint32_t node = (m->next_send + i) % m->config.n_nodes;
		struct chp_membership_peer *p = &m->peer[node];

		while (p->due != 0) {
			enum chp_control_type type = (enum chp_control_type)chp_first_bit(p->due);
			uint32_t len = write_packet(m, now_ns, node, type, to);

			p->due &= ~due_bit(type);
			if (len == 0)
				continue;
			chp_control_seal(to, len);
			m->next_send = (node + 1) % m->config.n_nodes;
			m->counters.tx_packets++;
			*peer = node;
			return len;
		}
	}
	return 0;
}

/* ---- what is known of a peer ---- */

/* The process behind a node id is this one: what was known of another is worth nothing. */
static void
forget(struct chp_membership *m, uint32_t node, uint64_t incarnation)
{
	struct chp_membership_peer *p = &m->peer[node];

	p->incarnation = incarnation;
	p->heard_ns = 0;
	p->heard_full_ns = 0;
	p->hears_us_ns = 0;
	p->epoch = 0;
	p->its_heard = 0;
	p->its_heard_full = 0;
	p->lease_ns = 0;
	p->shorts = 0;
	p->our_shorts = 0;
	p->bootstrap = false;
	p->members_differ = false;
	p->ready = false;
	p->leaves = false;
	memset(&p->host, 0, sizeof(p->host));
}

/* Processes with one node id take turns: once or twice it may be a late packet of one that restarted. */
static void
count_return(struct chp_membership *m, uint32_t node)
{
	if (++m->peer[node].returns >= CHP_MEMBERSHIP_RETURNS_MAX && first_report(m, node, REPORT_TWO))
		report(m, "two processes run as %s: stop one of them", node_text(m, node).text);
}

/* The process behind a peer's node id is another one than before, or the first. */
static void
new_incarnation(struct chp_membership *m, uint64_t now_ns, uint32_t from, uint64_t incarnation)
{
	struct chp_membership_peer *p = &m->peer[from];

	if (p->incarnation != 0)
		m->counters.new_incarnations++;
	if (p->previous == incarnation)
		count_return(m, from);
	p->previous = p->incarnation;
	forget(m, from, incarnation);
	chp_detector_distrust(&m->detector, from);
	poke(m, now_ns, from);
}

/* ---- heirs: who waits for the place of a silent predecessor ---- */

static void
forget_heir(struct chp_membership *m, uint32_t node)
{
	memset(&m->heir[node], 0, sizeof(m->heir[node]));
	m->heirs &= ~chp_bit(node);
	chp_detector_distrust(&m->heir_detector, node);
}

/* A heir that went away itself is none. */
static void
watch_heirs(struct chp_membership *m, uint64_t now_ns)
{
	(void)chp_detector_tick(&m->heir_detector, now_ns);
	for (uint64_t rest = m->heirs; rest != 0; rest &= rest - 1) {
		uint32_t i = chp_first_bit(rest);

		if (!is_recent(m->heir[i].heard_ns, now_ns))
			forget_heir(m, i);
	}
}

/*
 * A packet of a process that is not the one which the view has at its node id. False: another heir is before it.
 * The first few packets may be late ones of a process that is gone: the detector wants more than that.
 */
static bool
hear_heir(struct chp_membership *m, uint64_t now_ns, const struct chp_control_header *h)
{
	struct chp_membership_heir *e = &m->heir[h->from];

	if (e->incarnation != h->from_incarnation) {
		if (has_heir(m, h->from) && m->heir_detector.score[h->from] != 0)
			return false;
		m->counters.new_incarnations++;
		forget_heir(m, h->from);
		e->incarnation = h->from_incarnation;
		m->heirs |= chp_bit(h->from);
		poke(m, now_ns, h->from);
	}
	e->heard_ns = now_ns;
	chp_detector_heard(&m->heir_detector, h->from);
	return true;
}

/* Become another process as far as the others are concerned: nobody has heard anything of it. */
static void
renew(struct chp_membership *m, uint64_t now_ns)
{
	do
		m->incarnation = chp_random_u64(&m->random);
	while (m->incarnation == 0);
	m->born_ns = now_ns;
	memset(&m->founding, 0, sizeof(m->founding));
	m->founding_by = 0;
	m->part_ns = 0;
	m->refused_reason = (enum chp_refused_reason)0;
	m->alive = 0;
	for (uint32_t i = 0; i < m->config.n_nodes; i++) {
		m->peer[i].hears_us_ns = 0;
		m->peer[i].its_heard &= ~self_bit(m);
		m->peer[i].its_heard_full &= ~self_bit(m);
		m->peer[i].due = 0;
	}
	poke_all(m, now_ns, due_bit(CHP_CONTROL_HELLO));
}

/* ---- entering and losing views ---- */

/* A view dropped this node. One that is dropped again and again waits longer each time. */
static void
dropped_member(struct chp_membership *m, uint64_t now_ns, uint32_t node, uint64_t incarnation)
{
	struct chp_membership_peer *p = &m->peer[node];
	uint64_t waits = 0;

	if (p->dropped_ns == 0 ||
	    since(p->dropped_ns, now_ns) >= CHP_MEMBERSHIP_FLAP_FORGET * m->config.suspect_ns)
		p->drops = 0;
	if (p->drops > 0)
		waits = chp_min_u64(UINT64_C(1) << chp_min_u32(p->drops - 1, 31), CHP_MEMBERSHIP_FLAP_WAITS);
	p->drops++;
	p->dropped_ns = now_ns;
	p->admit_at_ns = now_ns + waits * m->config.suspect_ns;
	p->retired = incarnation;
}

/* What a new view makes of one peer. */
static void
enter_peer(struct chp_membership *m, uint64_t now_ns, uint32_t node, const struct chp_view *old)
{
	struct chp_membership_peer *p = &m->peer[node];
	uint64_t was = old->incarnation[node], is = m->view.incarnation[node];

	p->due = 0;
	if (was != 0 && was != is)
		dropped_member(m, now_ns, node, was);
	if (was != is)
		forget_heir(m, node);
	if (is != 0) {
		if (p->incarnation != is)
			forget(m, node, is);
		if (was == is)
			return;
		/* Its time begins now: never heard is silent from here on (pitfall P50). */
		chp_detector_trust(&m->detector, node);
		p->ready = false;
		return;
	}
	if (was != 0 || old->epoch == 0)
		chp_detector_distrust(&m->detector, node);
	poke(m, now_ns, node);
}

/* "node 1 suspected; node 2 promoted" */
static void
why_text(struct chp_membership *m, const struct chp_view *old, struct chp_text *t)
{
	const struct chp_view *v = &m->view;
	const char *separator = "";

	if (old->epoch == 0) {
		chp_text_add(t, !chp_epoch_is_first(v->epoch) ? "joined" :
				v->sources != 0               ? "first view, from what the hosts hold" :
								"first view");
		return;
	}
	if (old->sources != 0 && v->sources == 0) {
		chp_text_add(t, "reconciled");
		separator = "; ";
	}
	for (uint32_t i = 0; i < m->config.n_nodes; i++) {
		bool was = old->incarnation[i] != 0, same = old->incarnation[i] == v->incarnation[i];

		if (was && !same && !m->config.keeps_members) {
			chp_text_add(t, "%snode %u %s", separator, i, m->peer[i].leaves ? "left" : "suspected");
			separator = "; ";
		}
		if (v->incarnation[i] != 0 && !same) {
			chp_text_add(t, "%snode %u %s", separator, i,
				     m->config.keeps_members ? "replaced" : "admitted");
			separator = "; ";
			m->counters.admitted++;
		}
		if (same && (old->learners & v->voters & chp_bit(i)) != 0) {
			chp_text_add(t, "%snode %u promoted", separator, i);
			separator = "; ";
			m->counters.promoted++;
		}
	}
}

/* For `status` and the log: "view 3 is in force: voters 0 2, learners 1 (node 1 admitted)". */
static void
remember_change(struct chp_membership *m, uint64_t now_ns, uint64_t wanted_ns, const struct chp_view *old)
{
	struct chp_membership_change *c = &m->change[m->n_changes++ % CHP_MEMBERSHIP_CHANGES];
	struct chp_text why = chp_text_of(c->why, sizeof(c->why));
	char line[CHP_MEMBERSHIP_TEXT_BYTES - 2 * CHP_MEMBERSHIP_WHY_BYTES];
	struct chp_text t = chp_text_of(line, sizeof(line));

	c->epoch = m->view.epoch;
	c->at_ns = now_ns;
	c->took_ns = wanted_ns == 0 ? 0 : since(wanted_ns, now_ns);
	c->voters = m->view.voters;
	c->learners = m->view.learners;
	why_text(m, old, &why);
	chp_text_add(&t, "voters");
	for (uint64_t rest = c->voters; rest != 0; rest &= rest - 1)
		chp_text_add(&t, " %u", chp_first_bit(rest));
	if (c->learners != 0)
		chp_text_add(&t, ", learners");
	for (uint64_t rest = c->learners; rest != 0; rest &= rest - 1)
		chp_text_add(&t, " %u", chp_first_bit(rest));
	report(m, "view %" PRIu64 " is in force: %s (%s)", c->epoch, line, c->why);
}

/* Enter a view that is decided and has this process. */
static void
enter(struct chp_membership *m, uint64_t now_ns, const struct chp_view *v)
{
	const struct chp_view old = m->view;
	const uint64_t wanted_ns = m->wanted_ns;
	uint64_t kept_ns = (v->voters & self_bit(m)) != 0 ? chp_membership_lease_until_ns(m) : 0;

	CHP_ASSERT(names_us(m, v));
	CHP_ASSERT_OP(v->epoch, >, old.epoch);
	m->counters.views++;
	m->state = CHP_MEMBERSHIP_MEMBER;
	m->view = *v;
	m->entered_ns = now_ns;
	m->known_epoch = v->epoch;
	m->wanted_ns = 0;
	m->hold_ns = 0;
	m->accepted_at_ns = 0;
	m->refused_reason = (enum chp_refused_reason)0;
	memset(&m->founding, 0, sizeof(m->founding));
	m->founding_by = 0;
	m->part_ns = 0;
	if (old.epoch == 0)
		m->joined_epoch = v->epoch;
	chp_agreement_begin(&m->agreement, m->config.self, v);
	chp_lease_enter(&m->lease, kept_ns);
	for (uint32_t i = 0; i < m->config.n_nodes; i++)
		if (i != m->config.self)
			enter_peer(m, now_ns, i, &old);
	remember_change(m, now_ns, wanted_ns, &old);
	beat(m, now_ns);
}

/*
 * A view without this process is in force. Whoever was in a view, or is bound to a first one, is a new
 * incarnation from here on, with nothing of its state (SAFETY 21).
 */
static void
join(struct chp_membership *m, uint64_t now_ns, uint64_t epoch)
{
	bool was_member = m->view.epoch != 0;

	if (was_member) {
		m->counters.reborn++;
		m->lives++;
		report(m, "view %" PRIu64 " was decided without us: we drop our state and ask to be admitted",
		       epoch);
		memset(&m->view, 0, sizeof(m->view));
		memset(&m->agreement, 0, sizeof(m->agreement));
		memset(m->heir, 0, sizeof(m->heir));
		m->heirs = 0;
		chp_lease_init(&m->lease);
		m->ready = false;
		m->leaves = false;
		m->host_away_ns = m->stuck_ns = 0;
		memset(&m->host, 0, sizeof(m->host)); /* as the shards, whose host it is, begin anew */
		m->has_lease = false;
		m->lost_reported = false;
	} else if (m->state == CHP_MEMBERSHIP_FORMING) {
		report(m, "a view without us is in force: we ask to be admitted");
	}
	m->state = CHP_MEMBERSHIP_JOINING;
	m->heard_view_ns = now_ns;
	m->known_epoch = chp_max_u64(m->known_epoch, epoch);
	if (was_member || m->founding.epoch != 0)
		renew(m, now_ns);
	else
		poke_all(m, now_ns, due_bit(CHP_CONTROL_HELLO));
	for (uint32_t i = 0; i < m->config.n_nodes; i++)
		m->peer[i].hello_interval_ns = CHP_MEMBERSHIP_HELLO_NS_MIN;
	beat(m, now_ns);
}

/* Everybody who was in a view is gone: what is left can only found a new cluster. */
static void
form_again(struct chp_membership *m, uint64_t now_ns)
{
	report(m, "no member of the view is heard any more: waiting for a first view");
	m->state = CHP_MEMBERSHIP_FORMING;
	m->known_epoch = 0;
	renew(m, now_ns);
}

/* ---- the first view ---- */

static void
enter_if_complete(struct chp_membership *m, uint64_t now_ns)
{
	struct chp_view v = m->founding;

	if (m->state != CHP_MEMBERSHIP_FORMING || v.epoch == 0 || m->founding_by != chp_view_live(&v))
		return;
	enter(m, now_ns, &v);
	send_to(m, chp_view_live(&m->view), CHP_CONTROL_DECIDED);
}

/*
 * Say that we have accepted a first view. With hosts only when our stores know its epoch: a later process of this
 * node must know that there may be such a view, and accept none but of a later generation (SAFETY 34).
 */
static void
tell_founding(struct chp_membership *m, uint64_t now_ns)
{
	if (m->state != CHP_MEMBERSHIP_FORMING || m->founding.epoch == 0 || (m->founding_by & self_bit(m)) != 0)
		return;
	if (m->config.has_hosts && !CHP_MUTATED(S34_PROMISE_NOT_DURABLE) &&
	    (!m->host.is_there || m->host.life_min < m->founding.epoch))
		return;
	m->founding_by |= self_bit(m);
	poke_all(m, now_ns, due_bit(CHP_CONTROL_FOUNDING));
	enter_if_complete(m, now_ns);
}

/* Bind this incarnation to a first view, for ever. */
static void
accept_founding(struct chp_membership *m, uint64_t now_ns, const struct chp_view *v)
{
	CHP_ASSERT_OP(m->founding.epoch, ==, 0u);
	CHP_ASSERT_OP(v->incarnation[m->config.self], ==, m->incarnation);
	m->founding = *v;
	m->founding_by = 0;
	m->founding_hosts = 0;
	for (uint32_t i = 0; i < m->config.n_nodes; i++) {
		if (m->peer[i].host.is_there)
			m->founding_hosts |= chp_bit(i);
		m->peer[i].named_ns = now_ns;
		m->peer[i].other_ns = 0;
	}
	tell_founding(m, now_ns);
}

/* The accepted first view can't come: become a new incarnation, as a restart would, and start over. */
static void
abandon(struct chp_membership *m, uint64_t now_ns, uint32_t because)
{
	CHP_ASSERT_OP(m->state, ==, CHP_MEMBERSHIP_FORMING);
	m->counters.abandoned++;
	report(m, "the first view could not form because %s went away meanwhile: trying again",
	       node_text(m, because).text);
	renew(m, now_ns);
}

/*
 * A named process will hardly accept any more: it has been replaced, and silent for long. Where others could do
 * without it, its silence is enough, or that its host is gone.
 */
static bool
is_hopeless(const struct chp_membership *m, uint64_t now_ns, uint32_t node)
{
	const struct chp_membership_peer *p = &m->peer[node];

	if (node == m->config.self)
		return m->config.has_hosts && (m->founding_by & self_bit(m)) == 0 && !m->host.is_there;
	if (p->other_ns > p->named_ns && since(p->named_ns, now_ns) >= CHP_MEMBERSHIP_ABANDON_NS)
		return true;
	return m->config.has_hosts && (m->founding_by & chp_bit(node)) == 0 &&
	       (since(p->named_ns, now_ns) >= CHP_MEMBERSHIP_ALIVE_NS ||
		((m->founding_hosts & chp_bit(node)) != 0 && !p->host.is_there));
}

static void
abandon_if_hopeless(struct chp_membership *m, uint64_t now_ns)
{
	if (m->state != CHP_MEMBERSHIP_FORMING || m->founding.epoch == 0)
		return;
	for (uint64_t rest = chp_view_live(&m->founding); rest != 0; rest &= rest - 1) {
		uint32_t i = chp_first_bit(rest);

		if (is_hopeless(m, now_ns, i)) {
			abandon(m, now_ns, i);
			return;
		}
	}
}

/* What this process knows of all configured members. */
static void
survey(const struct chp_membership *m, uint64_t now_ns, struct chp_founding_member *member)
{
	for (uint32_t i = 0; i < m->config.n_nodes; i++) {
		const struct chp_membership_peer *p = &m->peer[i];
		enum obstacle o = obstacle_of(m, now_ns, i);

		member[i] = (struct chp_founding_member){
			.incarnation = p->incarnation,
			.is_fit = o == OBSTACLE_NONE || o == OBSTACLE_NOT_HEARING_OTHERS,
			.hears = p->its_heard_full | chp_bit(i),
			.host = p->host,
		};
	}
	member[m->config.self] = (struct chp_founding_member){
		.incarnation = m->incarnation,
		.is_fit = !m->config.has_hosts || m->host.is_there,
		.hears = heard_full(m, now_ns),
		.host = m->host,
	};
}

/*
 * Whether it is this process that begins a first view. A new cluster needs --bootstrap (SAFETY 21): without hosts at
 * node 0, with hosts anywhere. A cluster that stores remember begins again by itself. Of several the first does it, or
 * they might thwart each other for ever.
 */
static bool
is_founder(const struct chp_membership *m, uint64_t now_ns, const struct chp_view *v)
{
	if (!m->config.has_hosts)
		return m->config.bootstrap && m->config.self == FOUNDER;
	if (v->epoch != 1)
		return chp_first_bit(chp_view_live(v)) == m->config.self;
	for (uint32_t i = 0; i < m->config.self; i++) {
		if (m->peer[i].bootstrap && is_recent(m->peer[i].heard_ns, now_ns))
			return false;
	}
	return m->config.bootstrap;
}

/*
 * When a first view without some members may be accepted by this process. Its predecessor may have given a lease a
 * moment before it died, to somebody who goes on without knowing of us: that lease must be over (SAFETY 23, 34).
 */
static uint64_t
part_at_ns(const struct chp_membership *m)
{
	uint64_t lease_ns = m->config.lease_ns_max != 0 ? m->config.lease_ns_max : CHP_LEASE_NS_MAX;

	return CHP_MUTATED(S34_SERVES_IN_MINORITY) ? m->born_ns : m->born_ns + lease_ns;
}

/* When the founder begins without those that are not there. */
static uint64_t
found_at_ns(const struct chp_membership *m)
{
	if (m->part_ns == 0 || m->founding.epoch != 0)
		return CHP_NEVER;
	return chp_max_u64(part_at_ns(m), m->part_ns + m->config.host_grace_ns);
}

/* "node 2 (10.99.0.12)" of a mask, for a report. */
static void
nodes_text(uint64_t nodes, struct chp_text *t)
{
	for (uint64_t rest = nodes; rest != 0; rest &= rest - 1)
		chp_text_add(t, " %u", chp_first_bit(rest));
}

static void
report_cold_start(struct chp_membership *m, const struct chp_view *v)
{
	char line[CHP_MEMBERSHIP_TEXT_BYTES / 2];
	struct chp_text t = chp_text_of(line, sizeof(line));

	nodes_text(v->sources, &t);
	if (chp_view_live(v) != all_members(m)) {
		chp_text_add(&t, ", without");
		nodes_text(all_members(m) & ~chp_view_live(v), &t);
	}
	report(m, "cold start: view %" PRIu64 " from the stores of the hosts of%s", v->epoch, line);
}

/*
 * The founder accepts a view when all are fresh and hear each other, with hosts after a while also one of those that
 * are there; the others follow.
 */
static void
found_if_ready(struct chp_membership *m, uint64_t now_ns)
{
	struct chp_founding_member member[CHP_NODES_MAX];
	enum chp_founding_result result;
	struct chp_view v;

	if (m->state != CHP_MEMBERSHIP_FORMING || m->founding.epoch != 0) {
		m->part_ns = 0;
		return;
	}
	survey(m, now_ns, member);
	result = chp_founding_view(member, m->config.n_nodes, m->config.has_hosts, m->config.keeps_members, &v);
	if (result == CHP_FOUNDING_EXHAUSTED && first_report(m, m->config.self, REPORT_GENERATIONS))
		report(m, "this cluster has begun %u times and cannot begin again: its stores need a new cluster",
		       CHP_GENERATION_MAX);
	/* It must have ourselves: who hears others too badly to take part leaves it to them. */
	if (result <= CHP_FOUNDING_PART && (!names_us(m, &v) || !is_founder(m, now_ns, &v)))
		result = CHP_FOUNDING_TOO_FEW;
	if (result != CHP_FOUNDING_PART)
		m->part_ns = 0;
	else if (m->part_ns == 0)
		m->part_ns = now_ns;
	if (result != CHP_FOUNDING_ALL && (result != CHP_FOUNDING_PART || now_ns < found_at_ns(m)))
		return;
	if (v.sources != 0)
		report_cold_start(m, &v);
	accept_founding(m, now_ns, &v);
}

/* ---- views from packets ---- */

/* A later view as there can be one: no writer number twice or not given out yet (SAFETY 1). */
static bool
is_later_view(const struct chp_membership *m, const struct chp_view *v)
{
	uint64_t live = chp_view_live(v);

	if (m->config.keeps_members && ((live != all_members(m) && !m->config.has_hosts) ||
					chp_count_bits(v->voters) < chp_agreement_majority(all_members(m))))
		return false;
	/* A majority of two is two: no view has a single voter but that of a single member, or after a cold start. */
	if (m->config.n_nodes > 1 && chp_count_bits(v->voters) < 2 && !m->config.has_hosts &&
	    !CHP_MUTATED(P4_UNSUSPECTED_MAJORITY))
		return false;
	if ((v->sources & ~v->voters) != 0 || (v->sources != 0 && chp_generation(v->epoch) == 0))
		return false;
	for (uint32_t i = 0; i < m->config.n_nodes; i++) {
		if ((live & chp_bit(i)) == 0)
			continue;
		if (v->writer[i] == 0 || (v->next_writer != 0 && v->writer[i] >= v->next_writer))
			return false;
		for (uint32_t j = 0; j < i; j++)
			if ((live & chp_bit(j)) != 0 && v->writer[j] == v->writer[i])
				return false;
	}
	return true;
}

static bool
is_view(const struct chp_membership *m, const struct chp_view *v)
{
	if (chp_epoch_is_first(v->epoch))
		return chp_founding_is_view(v, m->config.n_nodes, m->config.has_hosts, m->config.keeps_members);
	return chp_generation(v->epoch) <= (m->config.has_hosts ? CHP_GENERATION_MAX : 0) && is_later_view(m, v);
}

/* The view of a packet; false, and counted, where it cannot be one. */
static bool
read_view(struct chp_membership *m, const struct chp_control_view *from, struct chp_view *v)
{
	const struct chp_control_member *member = chp_control_view_members(from);

	*v = (struct chp_view){
		.epoch = from->epoch,
		.voters = from->voters,
		.learners = from->learners,
		.next_writer = from->next_writer,
		.sources = from->sources,
	};
	for (uint32_t i = 0; i < m->config.n_nodes; i++) {
		v->incarnation[i] = member[i].incarnation;
		v->writer[i] = member[i].incarnation == 0 ? 0 : member[i].writer;
	}
	if (is_view(m, v))
		return true;
	m->counters.bad_view++;
	return false;
}

/* Whether a peer or we are in both views as the same process. */
static bool
in_both(const struct chp_view *a, const struct chp_view *b, uint32_t node)
{
	return a->incarnation[node] != 0 && a->incarnation[node] == b->incarnation[node];
}

/* The members of a view that were in the first one of its generation. */
static uint64_t
founders_of(const struct chp_membership *m, const struct chp_view *v)
{
	uint64_t founders = 0;

	for (uint32_t i = 0; i < m->config.n_nodes; i++)
		if (v->incarnation[i] != 0 && v->writer[i] <= m->config.n_nodes)
			founders |= chp_bit(i);
	return founders;
}

/*
 * Whether enough are left of those who began this generation to go on reconciling. What was durable at a majority of
 * all members is known to one of the sources as long as a majority of all members is there that was asked; a member
 * that came later was not asked, and what its store holds is overwritten. Who began has one of the first writer
 * numbers.
 */
static bool
may_reconcile(const struct chp_membership *m, const struct chp_view *v)
{
	return m->view.sources == 0 || chp_count_bits(founders_of(m, v)) >= majority_of_all(m);
}

/*
 * Whether a view may follow the present one: a majority of the voters stays (SAFETY 20), who stays keeps
 * writer number and vote, who is new learns first (SAFETY 9) and has a new writer number (SAFETY 1).
 */
static bool
may_follow(const struct chp_membership *m, const struct chp_view *v)
{
	const struct chp_view *old = &m->view;
	uint32_t stay = 0;

	if (v->epoch != old->epoch + 1 || (v->sources != 0 && v->sources != (old->sources & v->voters)) ||
	    !may_reconcile(m, v))
		return false;
	for (uint32_t i = 0; i < m->config.n_nodes; i++) {
		bool voted = (old->voters & chp_bit(i)) != 0, votes = (v->voters & chp_bit(i)) != 0;

		if (v->incarnation[i] == 0)
			continue;
		if (!in_both(old, v, i)) {
			if (votes || old->next_writer == 0 || v->writer[i] < old->next_writer)
				return false;
			continue;
		}
		if (v->writer[i] != old->writer[i] || (voted && !votes))
			return false;
		stay += voted;
	}
	return stay >= chp_agreement_majority(old->voters) || CHP_MUTATED(P4_UNSUSPECTED_MAJORITY);
}

/* ---- what the next view should be ---- */

/* A process outside the view may be admitted: it is heard well, and it and all members hear each other. */
static bool
is_candidate(const struct chp_membership *m, uint64_t now_ns, uint32_t node)
{
	const struct chp_membership_peer *p = &m->peer[node];
	uint64_t needed = chp_view_live(&m->view) & ~chp_membership_suspected(m);

	if (m->config.has_hosts && !p->host.is_there)
		return false;
	return p->incarnation != 0 && p->incarnation != p->retired && p->epoch == 0 &&
	       !p->members_differ && (m->detector.suspected & chp_bit(node)) == 0 &&
	       is_recent(p->heard_full_ns, now_ns) && (p->its_heard_full & needed) == needed &&
	       now_ns >= p->admit_at_ns;
}

/* Nothing was heard of a member for so long that its place may go to its heir. */
static bool
is_gone(const struct chp_membership *m, uint64_t now_ns, uint32_t node)
{
	return (chp_membership_suspected(m) & chp_bit(node)) != 0 &&
	       since(m->peer[node].heard_ns, now_ns) >= m->config.suspect_ns;
}

/* As is_candidate: a heir may have the place of its predecessor. */
static bool
may_inherit(const struct chp_membership *m, uint64_t now_ns, uint32_t node)
{
	const struct chp_membership_heir *e = &m->heir[node];
	uint64_t needed = chp_view_live(&m->view) & ~chp_membership_suspected(m);

	return has_heir(m, node) && is_gone(m, now_ns, node) && !e->members_differ &&
	       (m->heir_detector.suspected & chp_bit(node)) == 0 && is_recent(e->heard_full_ns, now_ns) &&
	       (e->its_heard_full & needed) == needed && now_ns >= m->peer[node].admit_at_ns;
}

/*
 * Whether the rest is enough when a voter more loses its memory: a majority of the present voters must stay
 * (SAFETY 20), and of all configured members a majority must be voters.
 */
static bool
may_lose_voter(const struct chp_membership *m, uint64_t stay, uint64_t voters)
{
	return chp_count_bits(stay) > chp_agreement_majority(m->view.voters) &&
	       chp_count_bits(voters) > chp_agreement_majority(all_members(m));
}

/* Of the voters a majority is heard: what it decides may come to something. */
static bool
hears_majority(const struct chp_membership *m)
{
	uint64_t heard = m->view.voters & ~chp_membership_suspected(m);

	return chp_count_bits(heard) >= chp_agreement_majority(m->view.voters);
}

/*
 * Whether every source is reconciled, but for those that are gone. What was durable at a majority of all members is
 * known to one of the others as long as these are a majority, with those whose stores never had anything.
 */
static bool
may_end_reconciling(const struct chp_membership *m, uint64_t now_ns)
{
	uint64_t done = founders_of(m, &m->view);

	for (uint64_t rest = m->view.sources; rest != 0; rest &= rest - 1) {
		uint32_t i = chp_first_bit(rest);

		if (i == m->config.self ? is_ready(m) : m->peer[i].ready)
			continue;
		if (i == m->config.self || !is_gone(m, now_ns, i))
			return false;
		done &= ~chp_bit(i);
	}
	return m->view.sources == 0 || chp_count_bits(done) >= majority_of_all(m);
}

/* Members that a cold start began without come as learners, like any other that was away. */
static void
admit_missing(const struct chp_membership *m, uint64_t now_ns, struct chp_view *v)
{
	for (uint64_t rest = all_members(m) & ~chp_view_live(v); rest != 0 && v->next_writer != 0; rest &= rest - 1) {
		uint32_t i = chp_first_bit(rest);

		if (!is_candidate(m, now_ns, i))
			continue;
		v->learners |= chp_bit(i);
		v->incarnation[i] = m->peer[i].incarnation;
		v->writer[i] = v->next_writer++;
	}
}

/* Learners that are ready become voters. */
static void
promote(const struct chp_membership *m, struct chp_view *v)
{
	uint64_t suspected = chp_membership_suspected(m);

	for (uint64_t rest = m->view.learners & ~suspected & ~self_bit(m); rest != 0; rest &= rest - 1) {
		uint32_t i = chp_first_bit(rest);

		if (m->peer[i].ready) {
			v->learners &= ~chp_bit(i);
			v->voters |= chp_bit(i);
		}
	}
}

/* Heirs have the places of those that are gone. */
static void
replace(const struct chp_membership *m, uint64_t now_ns, struct chp_view *v)
{
	uint64_t stay = m->view.voters;

	for (uint64_t rest = m->heirs; rest != 0 && v->next_writer != 0; rest &= rest - 1) {
		uint32_t i = chp_first_bit(rest);

		if (!may_inherit(m, now_ns, i) ||
		    ((v->voters & chp_bit(i)) != 0 && !may_lose_voter(m, stay, v->voters)))
			continue;
		stay &= ~chp_bit(i);
		v->voters &= ~chp_bit(i);
		v->learners |= chp_bit(i);
		v->incarnation[i] = m->heir[i].incarnation;
		v->writer[i] = v->next_writer++;
	}
}

/*
 * next_view() where silence drops nobody: promotions first, as they make room for replacements. After a cold start
 * sources that are gone do not hold up its end.
 */
static bool
next_view_keeping(const struct chp_membership *m, uint64_t now_ns, struct chp_view *v)
{
	*v = m->view;
	v->epoch++;
	if (!hears_majority(m))
		return false;
	if (may_end_reconciling(m, now_ns)) {
		v->sources = 0;
		promote(m, v);
	}
	replace(m, now_ns, v);
	v->sources &= v->voters;
	if (m->config.has_hosts)
		admit_missing(m, now_ns, v);
	return (v->voters != m->view.voters || v->next_writer != m->view.next_writer ||
		v->sources != m->view.sources) && may_reconcile(m, v);
}

/*
 * Those that ask to be left out go, one after the other, as long as the rest is enough: of the voters before, and of
 * all configured members, since less do not serve (SAFETY 32). Nobody does it to itself: the others must be there.
 */
static void
let_leave(const struct chp_membership *m, struct chp_view *v)
{
	for (uint64_t rest = chp_view_live(v) & ~self_bit(m); rest != 0; rest &= rest - 1) {
		uint64_t bit = rest & -rest;

		if (!m->peer[chp_first_bit(rest)].leaves ||
		    chp_count_bits(v->voters & ~bit) < chp_agreement_majority(m->view.voters) ||
		    chp_count_bits(chp_view_live(v) & ~bit) < majority_of_all(m))
			continue;
		v->voters &= ~bit;
		v->learners &= ~bit;
	}
}

/* What remains to be reconciled: nothing when every source has done so. */
static uint64_t
sources_of(const struct chp_membership *m, const struct chp_view *v)
{
	uint64_t sources = m->view.sources & v->voters;

	for (uint64_t rest = sources; rest != 0; rest &= rest - 1) {
		uint32_t i = chp_first_bit(rest);

		if (i == m->config.self ? !is_ready(m) : !m->peer[i].ready)
			return sources;
	}
	return 0;
}

/*
 * The view that this voter would have: false when it is the present one, or when too few voters would
 * stay: who cannot reach a majority of the voters changes nothing (SAFETY 20, pitfall P4).
 */
static bool
next_view(const struct chp_membership *m, uint64_t now_ns, struct chp_view *v)
{
	uint64_t suspected = chp_membership_suspected(m);

	if (m->config.keeps_members)
		return next_view_keeping(m, now_ns, v);
	*v = m->view;
	v->epoch++;
	v->voters &= ~suspected;
	v->learners &= ~suspected;
	if (chp_count_bits(v->voters) < chp_agreement_majority(m->view.voters) &&
	    !CHP_MUTATED(P4_UNSUSPECTED_MAJORITY))
		return false;
	let_leave(m, v);
	v->sources = sources_of(m, v);
	for (uint32_t i = 0; i < m->config.n_nodes; i++) {
		uint64_t bit = chp_bit(i);

		if ((v->learners & bit) != 0 && i != m->config.self && m->peer[i].ready && m->view.sources == 0) {
			v->learners &= ~bit;
			v->voters |= bit;
		} else if (!is_live(m, i) && m->view.sources == 0 && v->next_writer != 0 &&
			   is_candidate(m, now_ns, i)) {
			/* As long as there are sources what stores have counts in the first view only: keep that. */
			v->learners |= bit;
			v->incarnation[i] = m->peer[i].incarnation;
			v->writer[i] = v->next_writer++;
		} else if ((chp_view_live(v) & bit) == 0) {
			v->incarnation[i] = 0;
			v->writer[i] = 0;
		}
	}
	return (v->voters != m->view.voters || v->learners != m->view.learners || v->sources != m->view.sources) &&
	       may_reconcile(m, v);
}

/* ---- agreeing: the acceptor ---- */

/* Another voter proposes: leave it the time that it needs. */
static void
hold_back(struct chp_membership *m, uint64_t now_ns)
{
	m->hold_ns = now_ns + turn_ns(m) + chp_random_below(&m->random, m->heartbeat_ns + 1);
}

/*
 * When an acceptance may be told: when no process that the view drops can have a lease any more (SAFETY
 * 17, pitfall P14). Those are leases that we gave, on our clock, and our own, if it is us who is dropped;
 * and leases of the view before this one. Of the latter we may know nothing, as their givers need not be
 * acceptors any more; but since a majority gave none after it had told its acceptance of the present view,
 * they end a lease's length after that was decided, which was before we entered it.
 */
static uint64_t
tell_at_ns(const struct chp_membership *m, uint64_t now_ns, const struct chp_view *v)
{
	uint64_t at_ns = now_ns;

	if (m->config.keeps_members || CHP_MUTATED(P14_NO_WAIT_FOR_LEASES))
		return now_ns;
	if (!names_us(m, v))
		at_ns = chp_max_u64(at_ns, m->unasked_ns + m->config.lease_ns);
	for (uint64_t rest = m->view.voters & ~self_bit(m); rest != 0; rest &= rest - 1) {
		uint32_t i = chp_first_bit(rest);
		uint64_t lease_ns = m->peer[i].lease_ns;

		if (in_both(&m->view, v, i))
			continue;
		at_ns = chp_max_u64(at_ns, chp_lease_given_until(&m->lease, i, m->view.incarnation[i]));
		if (lease_ns == 0)
			lease_ns = CHP_LEASE_NS_MAX; /* it never told us how long its leases are */
		if (!chp_epoch_is_first(m->view.epoch))
			at_ns = chp_max_u64(at_ns, m->entered_ns + lease_ns);
	}
	return at_ns;
}

static void decided(struct chp_membership *m, uint64_t now_ns);

/* Tell the proposer, who may be ourselves, what we accepted, as soon as it may be told. */
static void
tell_accepted(struct chp_membership *m, uint64_t now_ns)
{
	struct chp_agreement *a = &m->agreement;

	if (a->accepted_ballot == 0 || a->told == a->accepted_ballot || now_ns < m->accepted_at_ns)
		return;
	/* Telling ends our asking for leases, also those that we ask for to be dropped by a later ballot. */
	if (may_ask(m))
		m->unasked_ns = now_ns;
	a->told = a->accepted_ballot;
	if (chp_ballot_node(a->told) != m->config.self)
		m->peer[chp_ballot_node(a->told)].due |= due_bit(CHP_CONTROL_ACCEPTED);
	else if (chp_agreement_accepted(a, m->config.self, a->told))
		decided(m, now_ns);
}

/* Accept a view, proposed by another or by ourselves. False: a higher ballot was promised. */
static bool
accept_view(struct chp_membership *m, uint64_t now_ns, uint64_t ballot, const struct chp_view *v)
{
	bool asked = may_ask(m), again = m->agreement.accepted_ballot == ballot;

	if (!chp_agreement_accept(&m->agreement, ballot, v))
		return false;
	if (asked)
		m->unasked_ns = now_ns;
	if (!again)
		m->accepted_at_ns = tell_at_ns(m, now_ns, v);
	tell_accepted(m, now_ns);
	return true;
}

/* ---- agreeing: the proposer ---- */

static uint32_t
quorum(const struct chp_membership *m)
{
	uint64_t voters = m->view.voters;

	if (CHP_MUTATED(P4_UNSUSPECTED_MAJORITY))
		voters &= ~chp_membership_suspected(m);
	return chp_agreement_majority(voters);
}

/* The voters before us that may propose first. */
static uint32_t
rank(const struct chp_membership *m)
{
	uint64_t before = m->view.voters & ~chp_membership_suspected(m) & (self_bit(m) - 1);

	for (uint64_t rest = before; rest != 0; rest &= rest - 1)
		if (m->peer[chp_first_bit(rest)].leaves)
			before &= ~(rest & -rest);
	return chp_count_bits(before);
}

static uint64_t
propose_at_ns(const struct chp_membership *m)
{
	return chp_max_u64(m->wanted_ns + rank(m) * turn_ns(m), m->hold_ns);
}

/* Ask those who have not answered yet, again and again. */
static void
send_round(struct chp_membership *m, uint64_t now_ns)
{
	const struct chp_agreement *a = &m->agreement;
	bool preparing = a->phase == CHP_AGREEMENT_PREPARING;

	send_to(m, a->voters & ~a->answered, preparing ? CHP_CONTROL_PREPARE : CHP_CONTROL_ACCEPT);
	m->resend_at_ns = now_ns + chp_random_range(&m->random, m->heartbeat_ns - m->heartbeat_ns / 4,
						    m->heartbeat_ns);
}

/* A majority has promised: the value is settled for this ballot. */
static void
begin_accepting(struct chp_membership *m, uint64_t now_ns)
{
	struct chp_view v = m->agreement.value;

	send_round(m, now_ns);
	accept_view(m, now_ns, m->agreement.ballot, &v);
}

static void
propose(struct chp_membership *m, uint64_t now_ns)
{
	struct chp_agreement *a = &m->agreement;
	struct chp_view v;

	/* What was accepted here or elsewhere is proposed again; a majority of promises will show it. */
	if (!next_view(m, now_ns, &v))
		v = a->accepted_ballot != 0 ? a->accepted : a->value;
	m->give_up_at_ns = now_ns + turn_ns(m) + chp_random_below(&m->random, turn_ns(m) + 1);
	m->hold_ns = m->give_up_at_ns;
	if (!chp_agreement_propose(a, &v, quorum(m)))
		return;
	m->counters.proposals++;
	if (a->phase == CHP_AGREEMENT_ACCEPTING)
		begin_accepting(m, now_ns);
	else
		send_round(m, now_ns);
}

/* The view that we proposed is in force. Tell everybody, also those that it drops. */
static void
decided(struct chp_membership *m, uint64_t now_ns)
{
	struct chp_view v = m->agreement.value;
	uint64_t tell = chp_view_live(&m->view) | chp_view_live(&v);

	if (!names_us(m, &v)) {
		join(m, now_ns, v.epoch);
		return;
	}
	enter(m, now_ns, &v);
	send_to(m, tell, CHP_CONTROL_DECIDED);
}

/* What a voter has to do now about the next view. */
static void
drive(struct chp_membership *m, uint64_t now_ns)
{
	struct chp_agreement *a = &m->agreement;
	struct chp_view v;

	if (is_voter(m))
		tell_accepted(m, now_ns);
	if (!is_voter(m))
		return;
	/* What was accepted must be brought to its end by whoever is there (pitfall P37). */
	if (a->accepted_ballot == 0 && !next_view(m, now_ns, &v)) {
		if (a->phase != CHP_AGREEMENT_IDLE)
			m->hold_ns = 0; /* it was ours */
		m->wanted_ns = 0;
		chp_agreement_stop(a);
		return;
	}
	if (m->wanted_ns == 0)
		m->wanted_ns = now_ns;
	if (a->phase == CHP_AGREEMENT_IDLE ? now_ns >= propose_at_ns(m) : now_ns >= m->give_up_at_ns)
		propose(m, now_ns);
	else if (a->phase != CHP_AGREEMENT_IDLE && now_ns >= m->resend_at_ns)
		send_round(m, now_ns);
}

/* ---- agreeing: packets ---- */

/* From a voter of our view, as the process that the view has, to us, and we are a voter too. */
static bool
between_voters(struct chp_membership *m, const struct chp_control_header *h)
{
	if (is_voter(m) && h->epoch == m->view.epoch && h->to_incarnation == m->incarnation &&
	    (m->view.voters & chp_bit(h->from)) != 0)
		return true;
	m->counters.old_packets++;
	return false;
}

static void
on_prepare(struct chp_membership *m, uint64_t now_ns, const struct chp_control_ballot *b)
{
	struct chp_membership_peer *p = &m->peer[b->header.from];
	uint64_t before = m->agreement.promised;

	if (!between_voters(m, &b->header))
		return;
	if (!chp_agreement_promise(&m->agreement, b->ballot)) {
		p->due |= due_bit(CHP_CONTROL_REJECTED);
		return;
	}
	if (b->ballot != before)
		hold_back(m, now_ns);
	p->due |= due_bit(CHP_CONTROL_PROMISE);
}

static void
on_promise(struct chp_membership *m, uint64_t now_ns, const struct chp_control_ballot *b, uint32_t len)
{
	const struct chp_control_view *packet = (const void *)b;
	struct chp_view v = { .epoch = 0 };
	uint64_t accepted = 0;

	if (!between_voters(m, &b->header))
		return;
	if (len != sizeof(*b)) {
		accepted = packet->accepted;
		if (!read_view(m, packet, &v))
			return;
		if (!may_follow(m, &v)) {
			m->counters.bad_view++;
			return;
		}
	}
	if (chp_agreement_promised(&m->agreement, b->header.from,
				   len != sizeof(*b) ? packet->ballot : b->ballot, accepted, &v))
		begin_accepting(m, now_ns);
}

static void
on_accept(struct chp_membership *m, uint64_t now_ns, const struct chp_control_view *packet)
{
	struct chp_membership_peer *p = &m->peer[packet->header.from];
	struct chp_agreement *a = &m->agreement;
	uint64_t before = a->promised;
	struct chp_view v;

	if (!between_voters(m, &packet->header) || !read_view(m, packet, &v))
		return;
	if (!may_follow(m, &v)) {
		m->counters.bad_view++;
		return;
	}
	if (!accept_view(m, now_ns, packet->ballot, &v)) {
		p->due |= due_bit(CHP_CONTROL_REJECTED);
		return;
	}
	if (packet->ballot != before)
		hold_back(m, now_ns);
	if (a->told == packet->ballot)
		p->due |= due_bit(CHP_CONTROL_ACCEPTED);
}

static void
on_accepted(struct chp_membership *m, uint64_t now_ns, const struct chp_control_ballot *b)
{
	if (between_voters(m, &b->header) &&
	    chp_agreement_accepted(&m->agreement, b->header.from, b->ballot))
		decided(m, now_ns);
}

static void
on_rejected(struct chp_membership *m, uint64_t now_ns, const struct chp_control_ballot *b)
{
	if (!between_voters(m, &b->header) || !chp_agreement_rejected(&m->agreement, b->ballot))
		return;
	m->counters.rejected++;
	/* At random, so that two who overtake each other do not do it for ever. */
	m->hold_ns = now_ns + chp_random_range(&m->random, m->heartbeat_ns, turn_ns(m));
}

/* ---- leases ---- */

/*
 * Whether this member gives leases to the voters of its view. With hosts learners do too: theirs say that they take
 * part in no cold start, and do not count as those of voters.
 */
static bool
is_giver(const struct chp_membership *m, uint64_t node, const struct chp_view *v)
{
	return ((m->config.has_hosts ? chp_view_live(v) : v->voters) & chp_bit((uint32_t)node)) != 0;
}

/* SAFETY 17: what an acceptor promises with a lease must not contradict what it has accepted. */
static bool
may_grant(const struct chp_membership *m, const struct chp_control_heartbeat *h)
{
	const struct chp_agreement *a = &m->agreement;
	uint32_t from = h->header.from;

	if (h->header.epoch != m->view.epoch || h->header.to_incarnation != m->incarnation ||
	    h->lease_ns > CHP_LEASE_NS_MAX ||
	    (m->config.lease_ns_max != 0 && h->lease_ns > m->config.lease_ns_max))
		return false;
	if (CHP_MUTATED(S17_GRANT_AFTER_ACCEPT))
		return true;
	return a->told == 0 && (a->accepted_ballot == 0 || in_both(&m->view, &a->accepted, from));
}

static void
on_heartbeat(struct chp_membership *m, uint64_t now_ns, const struct chp_control_heartbeat *h)
{
	uint32_t from = h->header.from;
	struct chp_membership_peer *p = &m->peer[from];

	if (m->state != CHP_MEMBERSHIP_MEMBER || !is_live(m, from))
		return;
	/*
	 * Who does not hear us can neither acknowledge nor grant: as good as dead, though it talks. That it hears us
	 * is said of packets of any kind, so both trust each other again as soon as both ways work.
	 */
	if ((h->flags & CHP_HEARTBEAT_HEARS) != 0)
		chp_detector_heard(&m->detector, from);
	p->ready = (h->flags & CHP_HEARTBEAT_READY) != 0;
	p->leaves = m->config.has_hosts && (h->flags & CHP_HEARTBEAT_LEAVES) != 0;
	p->lease_ns = chp_max_u64(p->lease_ns, h->lease_ns);
	if (h->lease_ns == 0 || !is_giver(m, m->config.self, &m->view) || (m->view.voters & chp_bit(from)) == 0)
		return;
	if (!may_grant(m, h)) {
		m->counters.leases_refused++;
		return;
	}
	m->counters.leases_given++;
	chp_lease_give(&m->lease, from, p->incarnation, now_ns + h->lease_ns);
	p->grant_sent_ns = h->sent_ns;
	p->grant_lease_ns = h->lease_ns;
	p->due |= due_bit(CHP_CONTROL_GRANT);
}

static void
on_grant(struct chp_membership *m, uint64_t now_ns, const struct chp_control_grant *g)
{
	uint64_t from_ns = CHP_MUTATED(P12_LEASE_FROM_RECEIPT) ? now_ns : g->sent_ns;

	if (!is_voter(m) || g->header.epoch != m->view.epoch || g->header.to_incarnation != m->incarnation ||
	    !is_giver(m, g->header.from, &m->view)) {
		m->counters.old_packets++;
		return;
	}
	if (g->sent_ns > now_ns || g->lease_ns > m->config.lease_ns) {
		m->counters.conflicts++; /* nothing that we asked for */
		return;
	}
	m->counters.leases_taken++;
	chp_lease_take(&m->lease, g->header.from,
		       from_ns + chp_lease_held_ns(g->lease_ns, m->config.clock_drift_ppm));
}

/* "no lease: node 1 (10.99.0.11) not heard for 2.1 s, node 2 (10.99.0.12) grants none" */
static void
no_lease_text(const struct chp_membership *m, uint64_t now_ns, struct chp_text *t)
{
	const char *separator = "";

	chp_text_add(t, "no lease: ");
	if (m->config.has_hosts && chp_count_bits(chp_view_live(&m->view)) < majority_of_all(m)) {
		chp_text_add(t, "less than a majority of the %u members in view %" PRIu64, m->config.n_nodes,
			     m->view.epoch);
		separator = ", ";
	}
	for (uint64_t rest = m->view.voters & ~self_bit(m); rest != 0; rest &= rest - 1) {
		uint32_t i = chp_first_bit(rest);
		const struct chp_membership_peer *p = &m->peer[i];

		if (m->lease.held_until_ns[i] > now_ns)
			continue;
		chp_text_add(t, "%s%s ", separator, node_text(m, i).text);
		if (since(chp_max_u64(p->heard_ns, m->entered_ns), now_ns) < m->config.suspect_ns / 2)
			chp_text_add(t, "grants none");
		else
			silence_text(p->heard_ns, now_ns, t);
		separator = ", ";
	}
}

/* Notice when the lease begins and ends, for people. */
static void
watch_lease(struct chp_membership *m, uint64_t now_ns)
{
	bool has = chp_membership_lease_until_ns(m) > now_ns;
	char line[CHP_MEMBERSHIP_TEXT_BYTES];
	struct chp_text t = chp_text_of(line, sizeof(line));

	if (has == m->has_lease)
		return;
	m->has_lease = has;
	if (has && m->lost_reported) {
		report(m, "lease regained");
		m->lost_reported = false;
	}
	if (has || !is_voter(m))
		return;
	m->counters.leases_lost++;
	if (m->lease_report_ns != 0 && since(m->lease_report_ns, now_ns) < CHP_MEMBERSHIP_LEASE_REPORT_NS)
		return;
	m->lease_report_ns = now_ns;
	m->lost_reported = true;
	no_lease_text(m, now_ns, &t);
	report(m, "%s", line);
}

/* ---- receiving ---- */

static void
dropped(struct chp_membership *m, const void *data, enum chp_packet_error e, uint32_t from_address)
{
	const struct chp_prelude *p = data;
	const struct chp_control_header *h = data;
	struct node_text source = source_text(m, from_address);

	m->counters.dropped[e]++;
	if (e == CHP_PACKET_CLUSTER && first_report(m, from_address, REPORT_CLUSTER))
		report(m, "%s belongs to another cluster or has another configuration: "
		       "hash %08x, ours %08x", source.text, p->cluster_hash,
		       m->config.cluster_hash);
	if (e == CHP_PACKET_VERSION && first_report(m, from_address, REPORT_VERSION))
		report(m, "%s speaks version %u of the protocol, we speak %u", source.text,
		       p->version, CHP_WIRE_VERSION);
	if (e == CHP_PACKET_NODE && first_report(m, from_address, REPORT_NODE))
		report(m, "%s says it is node %u and we are node %u; we are node %u of %u: "
		       "are the cluster files the same?",
		       source.text, h->from, h->to, m->config.self, m->config.n_nodes);
}

/* heard_ns: of the process that stands in its way, if any. */
static void
refuse(struct chp_membership *m, const struct chp_control_header *h, enum chp_refused_reason reason,
       uint64_t heard_ns)
{
	struct chp_membership_peer *p = &m->peer[h->from];

	m->counters.refused_sent++;
	p->refuse_incarnation = h->from_incarnation;
	p->refuse_reason = reason;
	p->refuse_heard_ns = heard_ns;
	p->due |= due_bit(CHP_CONTROL_REFUSED);
	if (reason == CHP_REFUSED_WRITERS && first_report(m, h->from, REPORT_WRITERS))
		report(m, "%s cannot be admitted: every writer number is used up", node_text(m, h->from).text);
}

/* Its HELLO was heard, and it is not the process that the view has: what it must wait for. */
static enum chp_refused_reason
why_heir_waits(const struct chp_membership *m, uint64_t now_ns, uint32_t node)
{
	const struct chp_view *v = &m->view;

	if (!is_gone(m, now_ns, node))
		return CHP_REFUSED_ALIVE;
	if (m->heir[node].members_differ)
		return CHP_REFUSED_MEMBERS;
	if (v->next_writer == 0)
		return CHP_REFUSED_WRITERS;
	if (!hears_majority(m) || ((v->voters & chp_bit(node)) != 0 && !may_lose_voter(m, v->voters, v->voters)))
		return CHP_REFUSED_VOTERS;
	return CHP_REFUSED_WAIT;
}

/* A node mask of a HELLO. What it says of us counts only if it means this incarnation. */
static uint64_t
said_of(const struct chp_membership *m, const struct chp_control_hello *h, uint64_t mask)
{
	uint64_t known = all_members(m);

	if (h->header.to_incarnation != m->incarnation)
		known &= ~self_bit(m);
	return mask & known;
}

static bool
members_differ(const struct chp_membership *m, const struct chp_control_hello *h)
{
	return h->n_members != m->config.n_nodes || h->members_hash != m->members_hash;
}

/* A HELLO of a process that wants the place which another one has in the view. */
static void
meet_heir(struct chp_membership *m, uint64_t now_ns, const struct chp_control_header *h, uint32_t len)
{
	const struct chp_control_hello *hello = (const void *)h;
	struct chp_membership_heir *e = &m->heir[h->from];

	if (!hear_heir(m, now_ns, h)) {
		refuse(m, h, CHP_REFUSED_ALIVE, e->heard_ns);
		return;
	}
	if (h->type == CHP_CONTROL_FOUNDING)
		return;
	e->its_heard_full = said_of(m, hello, hello->heard_full);
	e->members_differ = members_differ(m, hello);
	if (len >= m->config.payload_bytes) {
		if (!is_recent(e->heard_full_ns, now_ns))
			poke(m, now_ns, h->from);
		e->heard_full_ns = now_ns;
	}
	refuse(m, h, why_heir_waits(m, now_ns, h->from), m->peer[h->from].heard_ns);
}

/*
 * A packet of a process that is neither in the view nor the one that waits for its place. It counts as no
 * sign of life of any other (pitfall P52), and gets one answer at most.
 */
static void
answer_stranger(struct chp_membership *m, uint64_t now_ns, const struct chp_control_header *h, uint32_t len)
{
	struct chp_membership_peer *p = &m->peer[h->from];

	if (h->epoch > m->view.epoch) {
		m->counters.old_packets++; /* we are behind: our heartbeats will tell them */
	} else if (h->epoch == m->view.epoch) {
		m->counters.conflicts++;
	} else if (h->epoch != 0) {
		p->due |= due_bit(CHP_CONTROL_DECIDED); /* it has been cut off */
	} else if (h->type != CHP_CONTROL_HELLO && h->type != CHP_CONTROL_HELLO_SHORT &&
		   h->type != CHP_CONTROL_FOUNDING) {
		if (h->from_incarnation == m->heir[h->from].incarnation)
			(void)hear_heir(m, now_ns, h);
		else
			m->counters.old_packets++; /* its HELLOs are answered */
	} else if (h->from_incarnation == p->retired) {
		refuse(m, h, CHP_REFUSED_RETIRED, 0);
	} else {
		p->other_ns = p->heard_ns; /* heard again after this, the other one lives */
		if (m->config.keeps_members && is_live(m, h->from))
			meet_heir(m, now_ns, h, len);
		else
			refuse(m, h, CHP_REFUSED_ALIVE, p->heard_ns);
	}
}

/*
 * Whether a packet is of the process that the view has at this node id, or where it has none, of the one
 * that waits to be admitted. Another one may wait once that is silent.
 */
static bool
is_expected(const struct chp_membership *m, const struct chp_control_header *h)
{
	const struct chp_membership_peer *p = &m->peer[h->from];

	if (is_live(m, h->from))
		return h->from_incarnation == p->incarnation;
	if (h->from_incarnation == p->retired)
		return false;
	return h->from_incarnation == p->incarnation || p->incarnation == 0 ||
	       p->incarnation == p->retired || m->detector.score[h->from] == 0;
}

/* A packet that its sender sends only because one of ours has reached it. */
static bool
is_answer(const struct chp_control_header *h)
{
	return h->type == CHP_CONTROL_GRANT || h->type == CHP_CONTROL_PROMISE || h->type == CHP_CONTROL_ACCEPTED ||
	       h->type == CHP_CONTROL_REJECTED;
}

/* What every packet tells, whatever its type. */
static void
note_peer(struct chp_membership *m, uint64_t now_ns, const struct chp_control_header *h)
{
	struct chp_membership_peer *p = &m->peer[h->from];

	if (h->from_incarnation != p->incarnation)
		new_incarnation(m, now_ns, h->from, h->from_incarnation);
	p->heard_ns = now_ns;
	/* It has just followed us into the view: now it can give us a lease. */
	if (is_live(m, h->from) && p->epoch < m->view.epoch && h->epoch == m->view.epoch)
		p->due |= due_bit(CHP_CONTROL_HEARTBEAT);
	p->epoch = chp_max_u64(p->epoch, h->epoch);
	if (h->to_incarnation == m->incarnation)
		p->hears_us_ns = now_ns;
	if (h->epoch != 0)
		m->heard_view_ns = now_ns;
	if (m->state == CHP_MEMBERSHIP_MEMBER) {
		if (is_live(m, h->from) ? is_answer(h) : p->epoch == 0)
			chp_detector_heard(&m->detector, h->from);
		if (h->epoch < m->view.epoch && (is_live(m, h->from) || h->epoch != 0))
			p->due |= due_bit(CHP_CONTROL_DECIDED);
	} else if (m->state == CHP_MEMBERSHIP_FORMING && m->founding.epoch == 0) {
		if (h->epoch != 0)
			join(m, now_ns, 0);
	} else if (m->state == CHP_MEMBERSHIP_FORMING) {
		if (h->from_incarnation == m->founding.incarnation[h->from]) {
			p->named_ns = now_ns;
			/* It accepted our view, hence no other: that is the one it came by. */
			if (h->epoch >= m->founding.epoch &&
			    chp_generation(h->epoch) == chp_generation(m->founding.epoch) &&
			    (m->founding_by & chp_bit(h->from)) != 0)
				m->founding_by = chp_view_live(&m->founding);
		} else {
			p->other_ns = now_ns;
		}
	}
}

static void
report_small_packets(struct chp_membership *m, uint32_t from)
{
	const struct chp_membership_peer *p = &m->peer[from];
	uint32_t mtu = m->config.payload_bytes + CHP_IP_UDP_BYTES;

	if (p->shorts >= CHP_MEMBERSHIP_SHORTS_MAX && first_report(m, from, REPORT_SHORT))
		report(m, "we hear %s only in small packets: is our MTU or one between below %u?",
		       node_text(m, from).text, mtu);
	if (p->our_shorts >= CHP_MEMBERSHIP_SHORTS_MAX && first_report(m, from, REPORT_OUR_SHORT))
		report(m, "%s hears us only in small packets: is its MTU or one between below %u?",
		       node_text(m, from).text, mtu);
}

/* Why who asks to be admitted has to wait, or will never be. */
static enum chp_refused_reason
why_refused(const struct chp_membership *m, uint32_t node)
{
	if (m->peer[node].members_differ)
		return CHP_REFUSED_MEMBERS;
	if (m->config.has_hosts && !m->peer[node].host.is_there)
		return CHP_REFUSED_HOST;
	return m->view.next_writer == 0 ? CHP_REFUSED_WRITERS : CHP_REFUSED_WAIT;
}

/* What a HELLO says of the sender's host. */
static struct chp_membership_host
host_of(const struct chp_control_hello *h)
{
	if ((h->flags & CHP_HELLO_HOST) == 0)
		return (struct chp_membership_host){ .shards = 0 };
	return (struct chp_membership_host){
		.is_there = true,
		.is_volatile = (h->flags & CHP_HELLO_VOLATILE) != 0,
		.has_items = (h->flags & CHP_HELLO_ITEMS) != 0,
		.recorded_min = h->recorded_min,
		.recorded_max = h->recorded_max,
		.life_max = h->life_max,
	};
}

/* Who a HELLO comes from: its flags and its member list. */
static void
note_hello(struct chp_membership *m, const struct chp_control_hello *h)
{
	uint32_t from = h->header.from;
	struct chp_membership_peer *p = &m->peer[from];

	p->bootstrap = (h->flags & CHP_HELLO_BOOTSTRAP) != 0;
	p->its_heard = said_of(m, h, h->heard);
	p->its_heard_full = said_of(m, h, h->heard_full);
	p->members_differ = members_differ(m, h);
	p->host = host_of(h);
	if (p->members_differ) {
		m->counters.other_members++;
		if (first_report(m, from, REPORT_MEMBERS))
			report(m, "%s has other members or addresses in its cluster file than we",
			       node_text(m, from).text);
	}
	if (p->bootstrap && m->state == CHP_MEMBERSHIP_FORMING && m->config.self == FOUNDER &&
	    !m->config.bootstrap && !m->config.has_hosts && first_report(m, from, REPORT_BOOTSTRAP))
		report(m, "%s was started with --bootstrap, but it is node %u that needs it",
		       node_text(m, from).text, FOUNDER);
}

static void
on_hello(struct chp_membership *m, uint64_t now_ns, const struct chp_control_hello *h, uint32_t len)
{
	uint32_t from = h->header.from;
	struct chp_membership_peer *p = &m->peer[from];
	uint64_t both = heard_full(m, now_ns);

	note_hello(m, h);
	if (len >= m->config.payload_bytes) {
		if (!is_recent(p->heard_full_ns, now_ns))
			poke_all(m, now_ns, 0); /* whom we hear is news for everybody */
		p->heard_full_ns = now_ns;
		p->shorts = 0;
	} else if (!is_recent(p->heard_full_ns, now_ns)) {
		m->counters.short_only++;
		p->shorts++;
	}
	if ((p->its_heard & ~p->its_heard_full & self_bit(m)) != 0)
		p->our_shorts++;
	else
		p->our_shorts = 0;
	report_small_packets(m, from);
	if (m->state == CHP_MEMBERSHIP_JOINING && heard_full(m, now_ns) != both)
		poke_all(m, now_ns, 0); /* so is who hears us */
	if (m->state == CHP_MEMBERSHIP_MEMBER && !is_live(m, from) && h->header.epoch == 0)
		refuse(m, &h->header, why_refused(m, from), 0);
}

/* Whether no process that a first view names is known to have been replaced: we would wait in vain. */
static bool
names_whom_we_know(const struct chp_membership *m, const struct chp_view *v)
{
	for (uint32_t i = 0; i < m->config.n_nodes; i++) {
		uint64_t known = i == m->config.self ? m->incarnation : m->peer[i].incarnation;

		if (known != 0 && v->incarnation[i] != 0 && known != v->incarnation[i])
			return false;
	}
	return true;
}

/*
 * With hosts: whether our stores know of no view of this generation, and whether, if the view leaves somebody out, no
 * lease of before still runs.
 */
static bool
may_begin(const struct chp_membership *m, uint64_t now_ns, const struct chp_view *v)
{
	if (!m->config.has_hosts)
		return true;
	return m->host.is_there && v->epoch > chp_max_u64(m->host.life_max, m->host.recorded_max) &&
	       (chp_view_live(v) == all_members(m) || now_ns >= part_at_ns(m));
}

static void
on_founding(struct chp_membership *m, uint64_t now_ns, const struct chp_control_view *packet)
{
	uint32_t from = packet->header.from;
	struct chp_view v;

	if (m->state != CHP_MEMBERSHIP_FORMING)
		return;
	/* Only what the sender itself can have accepted. */
	if (!read_view(m, packet, &v) || !chp_epoch_is_first(v.epoch) ||
	    v.incarnation[from] != packet->header.from_incarnation)
		return;
	if (m->founding.epoch == 0) {
		if (m->peer[from].members_differ || !names_us(m, &v) || !names_whom_we_know(m, &v) ||
		    !may_begin(m, now_ns, &v))
			return;
		accept_founding(m, now_ns, &v);
	}
	if (views_equal(&m->founding, &v, m->config.n_nodes))
		m->founding_by |= chp_bit(from);
	else if (m->founding.incarnation[from] == packet->header.from_incarnation)
		abandon(m, now_ns, from); /* it can never accept ours */
}

/* A view that has us, of a later epoch than ours, or the first one that we accepted. */
static void
on_decided_with_us(struct chp_membership *m, uint64_t now_ns, const struct chp_view *v)
{
	if (m->state == CHP_MEMBERSHIP_FORMING && chp_epoch_is_first(v->epoch)) {
		/* Nobody can be in a first view that we have not accepted. */
		if (views_equal(&m->founding, v, m->config.n_nodes))
			m->founding_by = chp_view_live(v);
		else
			m->counters.conflicts++;
		return;
	}
	/*
	 * Admitted by a view of another generation while bound to the first one of ours: others may have entered that
	 * and count on us.
	 */
	if (m->state == CHP_MEMBERSHIP_FORMING && m->founding.epoch != 0 &&
	    chp_generation(v->epoch) != chp_generation(m->founding.epoch)) {
		join(m, now_ns, v->epoch);
		return;
	}
	if (m->state == CHP_MEMBERSHIP_MEMBER && v->epoch == m->view.epoch + 1 && !may_follow(m, v)) {
		m->counters.bad_view++;
		return;
	}
	/*
	 * Another writer number: a view between dropped us, and who did not know that admitted us again
	 * (SAFETY 1, 21).
	 */
	if (m->state == CHP_MEMBERSHIP_MEMBER && v->writer[m->config.self] != m->view.writer[m->config.self]) {
		join(m, now_ns, v->epoch);
		return;
	}
	enter(m, now_ns, v);
}

static void
on_decided(struct chp_membership *m, uint64_t now_ns, const struct chp_control_view *packet)
{
	struct chp_view v;

	if (!read_view(m, packet, &v))
		return;
	/* Only who is in a view tells of it. */
	if (v.incarnation[packet->header.from] != packet->header.from_incarnation ||
	    (m->view.epoch == v.epoch && !views_equal(&m->view, &v, m->config.n_nodes))) {
		m->counters.conflicts++;
		return;
	}
	if (v.epoch <= m->known_epoch)
		return; /* late */
	if (names_us(m, &v))
		on_decided_with_us(m, now_ns, &v);
	else
		join(m, now_ns, v.epoch);
}

/* ---- being refused ---- */

static void __attribute__((format(printf, 2, 3)))
give_up(struct chp_membership *m, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(m->reason, sizeof(m->reason), format, args);
	va_end(args);
	m->state = CHP_MEMBERSHIP_REFUSED;
	for (uint32_t i = 0; i < m->config.n_nodes; i++)
		m->peer[i].due = 0;
	report(m, "%s", m->reason);
}

/*
 * Another process has our node id. If it is our own predecessor it was last heard before we began, but for
 * packets that were long on their way; who is heard on and on after that is alive.
 */
static void
count_alive(struct chp_membership *m, uint64_t now_ns, uint64_t before_ns)
{
	uint64_t heard_ns = m->refused_heard_ns;
	uint64_t span_ns = chp_max_u64(2 * m->config.suspect_ns, NS_PER_S);

	if (heard_ns <= m->born_ns || (m->alive > 0 && heard_ns <= before_ns))
		return;
	if (m->alive++ == 0)
		m->alive_first_ns = heard_ns;
	if (m->alive >= CHP_MEMBERSHIP_ALIVE_MAX && heard_ns >= m->alive_first_ns + span_ns)
		give_up(m, "another process runs as node %u: %s heard it %" PRIu64 " ms ago, long after we "
			"started; stop one of them", m->config.self, node_text(m, m->refused_by).text,
			since(heard_ns, now_ns) / NS_PER_MS);
}

static void
on_refused(struct chp_membership *m, uint64_t now_ns, const struct chp_control_refused *r)
{
	uint64_t before_ns = m->refused_heard_ns;

	if (m->state == CHP_MEMBERSHIP_MEMBER || r->header.epoch == 0 ||
	    r->header.to_incarnation != m->incarnation) {
		m->counters.old_packets++;
		return;
	}
	if (m->state == CHP_MEMBERSHIP_FORMING)
		join(m, now_ns, 0);
	if (r->reason == CHP_REFUSED_RETIRED)
		renew(m, now_ns);
	m->refused_reason = (enum chp_refused_reason)r->reason;
	m->refused_by = r->header.from;
	m->refused_ns = now_ns;
	m->refused_heard_ns = 0;
	if (r->heard_ms != UINT32_MAX && r->heard_ms < now_ns / NS_PER_MS)
		m->refused_heard_ns = now_ns - r->heard_ms * NS_PER_MS;
	if (r->reason == CHP_REFUSED_ALIVE)
		count_alive(m, now_ns, before_ns);
	else if (r->reason == CHP_REFUSED_MEMBERS)
		give_up(m, "%s refused us: our cluster file has other members or addresses than that of "
			"the cluster", node_text(m, m->refused_by).text);
	else if (r->reason == CHP_REFUSED_WRITERS)
		give_up(m, "%s refused us: every writer number of this cluster is used up, only a new "
			"cluster can have us", node_text(m, m->refused_by).text);
}

/* ---- events ---- */

static void
dispatch(struct chp_membership *m, uint64_t now_ns, const struct chp_control_header *h,
	 uint32_t len)
{
	switch ((enum chp_control_type)h->type) {
	case CHP_CONTROL_HELLO:
	case CHP_CONTROL_HELLO_SHORT:
		on_hello(m, now_ns, (const void *)h, len);
		break;
	case CHP_CONTROL_FOUNDING:
		on_founding(m, now_ns, (const void *)h);
		break;
	case CHP_CONTROL_REFUSED:
		on_refused(m, now_ns, (const void *)h);
		break;
	case CHP_CONTROL_HEARTBEAT:
		on_heartbeat(m, now_ns, (const void *)h);
		break;
	case CHP_CONTROL_GRANT:
		on_grant(m, now_ns, (const void *)h);
		break;
	case CHP_CONTROL_PREPARE:
		on_prepare(m, now_ns, (const void *)h);
		break;
	case CHP_CONTROL_PROMISE:
		on_promise(m, now_ns, (const void *)h, len);
		break;
	case CHP_CONTROL_ACCEPT:
		on_accept(m, now_ns, (const void *)h);
		break;
	case CHP_CONTROL_ACCEPTED:
		on_accepted(m, now_ns, (const void *)h);
		break;
	case CHP_CONTROL_REJECTED:
		on_rejected(m, now_ns, (const void *)h);
		break;
	case CHP_CONTROL_DECIDED: /* was looked at first, whoever sent it */
	case CHP_CONTROL_TYPES:
		break;
	}
}

/* What follows from all that is known now. */
static void
settle(struct chp_membership *m, uint64_t now_ns)
{
	tell_founding(m, now_ns);
	enter_if_complete(m, now_ns);
	abandon_if_hopeless(m, now_ns);
	found_if_ready(m, now_ns);
	drive(m, now_ns);
	watch_lease(m, now_ns);
}

/* A packet of a known sender at its own address. */
static void
take(struct chp_membership *m, uint64_t now_ns, const struct chp_control_header *h, uint32_t len)
{
	struct chp_membership_peer *p = &m->peer[h->from];

	/* A view may come from a process that only that view makes a member. */
	if (h->type == CHP_CONTROL_DECIDED)
		on_decided(m, now_ns, (const void *)h);
	if (m->state == CHP_MEMBERSHIP_MEMBER && !is_expected(m, h)) {
		answer_stranger(m, now_ns, h, len);
	} else {
		if (m->state == CHP_MEMBERSHIP_MEMBER && p->other_ns != 0 && p->other_ns == p->heard_ns &&
		    now_ns > p->heard_ns) {
			p->other_ns = 0;
			count_return(m, h->from);
		}
		note_peer(m, now_ns, h);
		dispatch(m, now_ns, h, len);
	}
	settle(m, now_ns);
}

void
chp_membership_receive(struct chp_membership *m, uint64_t now_ns, const void *data, uint32_t len,
		       uint32_t from_address)
{
	const struct chp_control_header *h = data;
	enum chp_packet_error e =
		chp_control_check(data, len, m->config.cluster_hash, m->config.n_nodes);

	if (e == CHP_PACKET_OK && h->to != m->config.self)
		e = CHP_PACKET_NODE;
	if (e != CHP_PACKET_OK) {
		dropped(m, data, e, from_address);
		return;
	}
	if (h->from != from_address) {
		m->counters.other_address++;
		if (first_report(m, from_address, REPORT_ADDRESS))
			report(m, "%s says it is node %u, which our cluster file has elsewhere",
			       source_text(m, from_address).text, h->from);
		return;
	}
	if (m->state == CHP_MEMBERSHIP_REFUSED)
		return;
	m->counters.rx_packets++;
	take(m, now_ns, h, len);
}

void
chp_membership_peer_heard(struct chp_membership *m, uint64_t now_ns, uint32_t peer,
			  uint64_t incarnation)
{
	CHP_ASSERT_OP(peer, <, m->config.n_nodes);
	if (is_live(m, peer) && incarnation == m->view.incarnation[peer])
		m->peer[peer].heard_ns = now_ns;
}

void
chp_membership_set_ready(struct chp_membership *m, uint64_t now_ns, bool ready)
{
	/* Outside a view there is nothing to be ready for: what the driver says is of the life before. */
	if (m->ready == ready || m->state != CHP_MEMBERSHIP_MEMBER)
		return;
	m->ready = ready;
	beat(m, now_ns);
}

/* ---- the host ---- */

/*
 * How long a cache without room may hold up the writes of new keys of the whole cluster while its host is away: a part
 * of the grace that a host has, in which its process can be started again.
 */
static uint64_t
stuck_max_ns(const struct chp_membership *m)
{
	return m->config.host_grace_ns / STUCK_SHARE;
}

/* Why a replica should not be in the view any more, as far as its host is concerned; NULL: it should (SAFETY 32). */
static const char *
why_leave(const struct chp_membership *m, uint64_t now_ns)
{
	if (m->state != CHP_MEMBERSHIP_MEMBER)
		return NULL;
	if (m->host.has_lost)
		return "its store holds less than it had reported durable";
	if (m->host_away_ns != 0 && since(m->host_away_ns, now_ns) >= m->config.host_grace_ns)
		return "its host is gone";
	if (m->stuck_ns != 0 && since(m->stuck_ns, now_ns) >= stuck_max_ns(m))
		return "its host is away and its cache is full of what is not saved";
	if (m->config.leave_fill_ppm != 0 && m->host.log_fill_ppm >= m->config.leave_fill_ppm)
		return "its host does not keep up and its log is full";
	return NULL;
}

/* Ask the others to go on without us, or no longer. */
static void
watch_host(struct chp_membership *m, uint64_t now_ns)
{
	const char *why;

	/* Who keeps its place has a log that does not wait for it. */
	if (!m->config.has_hosts || m->config.keeps_members)
		return;
	if (m->state != CHP_MEMBERSHIP_MEMBER || m->host.is_ready)
		m->host_away_ns = 0;
	else if (m->host_away_ns == 0)
		m->host_away_ns = now_ns;
	if (m->host_away_ns == 0 || !m->host.is_stuck)
		m->stuck_ns = 0;
	else if (m->stuck_ns == 0)
		m->stuck_ns = now_ns;
	why = why_leave(m, now_ns);
	if (m->leaves == (why != NULL))
		return;
	m->leaves = why != NULL;
	if (m->leaves)
		report(m, "this replica asks for a view without it: %s", why);
	else
		report(m, "this replica can stay: its host is there");
	beat(m, now_ns);
}

void
chp_membership_set_host(struct chp_membership *m, uint64_t now_ns, const struct chp_membership_host *h)
{
	bool was_there = m->host.is_there, was_ready = is_ready(m);

	CHP_ASSERT(m->config.has_hosts);
	if (m->state == CHP_MEMBERSHIP_REFUSED)
		return;
	m->host = *h;
	if (was_there != h->is_there)
		poke_all(m, now_ns, 0); /* news for everybody */
	if (was_ready != is_ready(m))
		beat(m, now_ns);
	watch_host(m, now_ns);
	settle(m, now_ns);
}

uint64_t
chp_membership_founding(const struct chp_membership *m)
{
	return m->config.has_hosts ? m->founding.epoch : 0;
}

/* ---- time ---- */

void
chp_membership_init(struct chp_membership *m, const struct chp_membership_config *config,
		    uint64_t now_ns)
{
	CHP_ASSERT_OP(config->n_nodes, >=, 1u);
	CHP_ASSERT_OP(config->n_nodes, <=, CHP_NODES_MAX);
	CHP_ASSERT_OP(config->self, <, config->n_nodes);
	CHP_ASSERT_OP(config->payload_bytes, >=, CHP_PAYLOAD_BYTES_MIN);
	CHP_ASSERT_OP(config->payload_bytes, <=, CHP_PAYLOAD_BYTES_MAX);
	CHP_ASSERT_OP(config->incarnation, !=, 0u);
	CHP_ASSERT_OP(config->suspect_ns, >=, CHP_DETECTOR_FULL);
	CHP_ASSERT_OP(config->lease_ns, >=, 4u);
	CHP_ASSERT_OP(config->lease_ns, <=, CHP_LEASE_NS_MAX);
	CHP_ASSERT_OP(config->clock_drift_ppm, <=, CHP_CLOCK_DRIFT_PPM_MAX);
	CHP_ASSERT(config->lease_ns_max == 0 || config->lease_ns <= config->lease_ns_max);
	memset(m, 0, sizeof(*m));
	m->config = *config;
	m->incarnation = config->incarnation;
	m->lives = 1;
	m->born_ns = now_ns;
	m->random.state = config->incarnation;
	m->members_hash =
		chp_crc32c(config->address, config->n_nodes * sizeof(config->address[0]), 0);
	m->heartbeat_ns = config->suspect_ns / CHP_DETECTOR_FULL;
	if (!config->keeps_members)
		m->heartbeat_ns = chp_min_u64(m->heartbeat_ns, config->lease_ns / 4);
	chp_detector_init(&m->detector, config->suspect_ns, now_ns);
	chp_detector_init(&m->heir_detector, config->suspect_ns, now_ns);
	chp_lease_init(&m->lease);
	for (uint32_t i = 0; i < config->n_nodes; i++) {
		m->peer[i].hello_at_ns = now_ns;
		m->peer[i].hello_interval_ns = CHP_MEMBERSHIP_HELLO_NS_MIN;
	}
	settle(m, now_ns);
}

/* One step of the detector: whom the view should lose. */
static void
detect(struct chp_membership *m, uint64_t now_ns)
{
	uint64_t before = chp_membership_suspected(m);
	uint64_t suspects = chp_detector_tick(&m->detector, now_ns) & chp_view_live(&m->view);
	uint64_t back = before & ~chp_membership_suspected(m);

	for (uint64_t rest = back; rest != 0 && m->config.keeps_members; rest &= rest - 1)
		report(m, "%s is heard again", node_text(m, chp_first_bit(rest)).text);
	for (uint64_t rest = suspects & ~self_bit(m); rest != 0; rest &= rest - 1) {
		uint32_t i = chp_first_bit(rest);
		char line[CHP_MEMBERSHIP_TEXT_BYTES / 2];
		struct chp_text t = chp_text_of(line, sizeof(line));

		m->counters.suspected++;
		if (since(m->peer[i].heard_ns, now_ns) < m->config.suspect_ns / 2)
			chp_text_add(&t, "does not hear us");
		else
			silence_text(m->peer[i].heard_ns, now_ns, &t);
		report(m, "%s is suspected: %s", node_text(m, i).text, line);
	}
}

void
chp_membership_tick(struct chp_membership *m, uint64_t now_ns)
{
	if (m->state == CHP_MEMBERSHIP_REFUSED)
		return;
	if (m->state == CHP_MEMBERSHIP_JOINING && since(m->heard_view_ns, now_ns) >= view_silence_ns(m))
		form_again(m, now_ns);
	if (m->state == CHP_MEMBERSHIP_MEMBER) {
		detect(m, now_ns);
		watch_heirs(m, now_ns);
		watch_host(m, now_ns);
	}
	settle(m, now_ns);
	for (uint64_t rest = hello_mask(m); rest != 0; rest &= rest - 1)
		if (now_ns >= m->peer[chp_first_bit(rest)].hello_at_ns)
			hello_peer(m, now_ns, chp_first_bit(rest));
	if (heartbeat_mask(m) != 0 && now_ns >= m->heartbeat_at_ns)
		beat(m, now_ns);
}

/* When a voter has something to do about the next view. */
static uint64_t
drive_at_ns(const struct chp_membership *m)
{
	const struct chp_agreement *a = &m->agreement;
	uint64_t at_ns = CHP_NEVER;

	if (!is_voter(m))
		return CHP_NEVER;
	if (a->accepted_ballot != 0 && a->told != a->accepted_ballot)
		at_ns = m->accepted_at_ns;
	if (a->phase != CHP_AGREEMENT_IDLE)
		return chp_min_u64(at_ns, chp_min_u64(m->resend_at_ns, m->give_up_at_ns));
	return m->wanted_ns == 0 ? at_ns : chp_min_u64(at_ns, propose_at_ns(m));
}

uint64_t
chp_membership_wake_ns(const struct chp_membership *m)
{
	uint64_t wake_ns = drive_at_ns(m);

	if (m->state == CHP_MEMBERSHIP_REFUSED)
		return CHP_NEVER;
	for (uint32_t i = 0; i < m->config.n_nodes; i++)
		if (m->peer[i].due != 0)
			return 0;
	for (uint64_t rest = hello_mask(m); rest != 0; rest &= rest - 1)
		wake_ns = chp_min_u64(wake_ns, m->peer[chp_first_bit(rest)].hello_at_ns);
	if (heartbeat_mask(m) != 0)
		wake_ns = chp_min_u64(wake_ns, m->heartbeat_at_ns);
	if (m->state == CHP_MEMBERSHIP_JOINING)
		wake_ns = chp_min_u64(wake_ns, m->heard_view_ns + view_silence_ns(m));
	if (m->state == CHP_MEMBERSHIP_MEMBER && m->config.n_nodes > 1)
		wake_ns = chp_min_u64(wake_ns, m->detector.next_ns);
	if (m->has_lease)
		wake_ns = chp_min_u64(wake_ns, chp_membership_lease_until_ns(m));
	if (m->state == CHP_MEMBERSHIP_FORMING)
		wake_ns = chp_min_u64(wake_ns, found_at_ns(m));
	if (m->host_away_ns != 0 && !m->leaves)
		wake_ns = chp_min_u64(wake_ns, m->host_away_ns + m->config.host_grace_ns);
	if (m->stuck_ns != 0 && !m->leaves)
		wake_ns = chp_min_u64(wake_ns, m->stuck_ns + stuck_max_ns(m));
	return wake_ns;
}

/* ---- for people ---- */

const char *
chp_membership_report(struct chp_membership *m)
{
	if (m->report_next - m->report_read > CHP_MEMBERSHIP_REPORTS)
		m->report_read = m->report_next - CHP_MEMBERSHIP_REPORTS;
	if (m->report_read == m->report_next)
		return NULL;
	return m->report[m->report_read++ % CHP_MEMBERSHIP_REPORTS];
}

/* Append what a member lacks, as "never heard". */
static void
obstacle_text(const struct chp_membership *m, uint64_t now_ns, uint32_t node, struct chp_text *t)
{
	const struct chp_membership_peer *p = &m->peer[node];

	switch (obstacle_of(m, now_ns, node)) {
	case OBSTACLE_NONE:
		chp_text_add(t, "ready");
		break;
	case OBSTACLE_NEVER_HEARD:
		chp_text_add(t, "never heard");
		break;
	case OBSTACLE_SILENT:
		chp_text_add(t, "not heard for %" PRIu64 " s", since(p->heard_ns, now_ns) / NS_PER_S);
		break;
	case OBSTACLE_MEMBERS:
		chp_text_add(t, "has other members or addresses in its cluster file");
		break;
	case OBSTACLE_IN_VIEW:
		chp_text_add(t, "is in a view already");
		break;
	case OBSTACLE_SHORT:
		chp_text_add(t, "heard only in small packets (MTU?)");
		break;
	case OBSTACLE_NOT_HEARING_US:
		chp_text_add(t, "does not hear us");
		break;
	case OBSTACLE_HEARING_US_SHORT:
		chp_text_add(t, "hears us only in small packets (MTU?)");
		break;
	case OBSTACLE_NO_HOST:
		chp_text_add(t, "its host is not there");
		break;
	case OBSTACLE_NOT_HEARING_OTHERS:
		chp_text_add(t, "does not hear %s",
			     node_text(m, chp_first_bit(all_members(m) & ~p->its_heard_full)).text);
		break;
	}
}

/* Whether a store remembers that there was a cluster. */
static bool
has_begun_before(const struct chp_membership *m)
{
	uint64_t life = m->host.life_max;

	for (uint32_t i = 0; i < m->config.n_nodes; i++)
		life = chp_max_u64(life, m->peer[i].host.life_max);
	return life != 0;
}

static void
forming_text(const struct chp_membership *m, uint64_t now_ns, struct chp_text *t)
{
	enum obstacle worst = OBSTACLE_NONE;
	uint32_t node = 0;

	if (m->founding.epoch != 0) {
		uint64_t missing = chp_view_live(&m->founding) & ~m->founding_by;

		if ((missing & self_bit(m)) != 0) {
			chp_text_add(t, "waiting for our host to know of the first view");
			return;
		}
		chp_text_add(t, "waiting for %s to accept the first view",
			     node_text(m, chp_first_bit(missing)).text);
		return;
	}
	for (uint32_t i = 0; i < m->config.n_nodes; i++) {
		enum obstacle o = i == m->config.self ? OBSTACLE_NONE : obstacle_of(m, now_ns, i);

		/* Whom another does not hear, we mostly don't hear either: that is said first. */
		if (o != OBSTACLE_NONE && (worst == OBSTACLE_NONE || o < worst)) {
			worst = o;
			node = i;
		}
	}
	if (m->config.has_hosts && !m->host.is_there) {
		chp_text_add(t, "waiting for our host");
		return;
	}
	if (m->part_ns != 0) {
		chp_text_add(t, "beginning without it in %" PRIu64 " s: ",
			     (found_at_ns(m) - chp_min_u64(found_at_ns(m), now_ns)) / NS_PER_S);
	}
	if (worst != OBSTACLE_NONE) {
		chp_text_add(t, "waiting for %s: ", node_text(m, node).text);
		obstacle_text(m, now_ns, node, t);
		return;
	}
	if (has_begun_before(m)) {
		chp_text_add(t, "waiting for a member to begin with what the hosts hold");
		return;
	}
	if (m->config.self != FOUNDER && m->peer[FOUNDER].bootstrap)
		chp_text_add(t, "waiting for %s to begin the first view",
			     node_text(m, FOUNDER).text);
	else
		chp_text_add(t, "all members are ready: start %s with --bootstrap to form a new, "
			     "empty cluster", node_text(m, FOUNDER).text);
}

static void
joining_text(const struct chp_membership *m, uint64_t now_ns, struct chp_text *t)
{
	struct node_text by = node_text(m, m->refused_by);

	chp_text_add(t, "joining: ");
	if (m->refused_reason == CHP_REFUSED_ALIVE && m->refused_heard_ns != 0)
		chp_text_add(t, "%s heard another process as node %u %" PRIu64 ".%" PRIu64 " s ago and "
			     "must drop it first", by.text, m->config.self,
			     since(m->refused_heard_ns, now_ns) / NS_PER_S,
			     since(m->refused_heard_ns, now_ns) / (100 * NS_PER_MS) % 10);
	else if (m->refused_reason == CHP_REFUSED_ALIVE)
		chp_text_add(t, "%s must drop another process that was node %u first", by.text,
			     m->config.self);
	else if (m->refused_reason == CHP_REFUSED_VOTERS)
		chp_text_add(t, "%s cannot take us yet: too few members with their memory would be left",
			     by.text);
	else if (m->refused_reason == CHP_REFUSED_HOST)
		chp_text_add(t, "%s will admit us when our host is there", by.text);
	else if (m->refused_reason == CHP_REFUSED_WAIT)
		chp_text_add(t, "%s will admit us when we and all members hear each other", by.text);
	else
		chp_text_add(t, "waiting for an answer of the members");
	if (since(m->heard_view_ns, now_ns) >= m->config.suspect_ns) {
		chp_text_add(t, "; members ");
		silence_text(m->heard_view_ns, now_ns, t);
	}
}

static void
member_text(const struct chp_membership *m, struct chp_text *t)
{
	chp_text_add(t, "in view %" PRIu64, m->view.epoch);
	if (!is_voter(m))
		chp_text_add(t, is_ready(m) ? ", waiting to be made a voter" :
				m->ready    ? ", waiting for its host to have everything" :
					      ", copying the state");
	else if (m->view.sources != 0)
		chp_text_add(t, ", reconciling what the hosts hold");
	if (m->leaves)
		chp_text_add(t, ", asks to leave it because of its host");
}

void
chp_membership_waiting(const struct chp_membership *m, uint64_t now_ns, struct chp_text *t)
{
	switch (m->state) {
	case CHP_MEMBERSHIP_FORMING:
		forming_text(m, now_ns, t);
		break;
	case CHP_MEMBERSHIP_JOINING:
		joining_text(m, now_ns, t);
		break;
	case CHP_MEMBERSHIP_REFUSED:
		chp_text_add(t, "%s", m->reason);
		break;
	case CHP_MEMBERSHIP_MEMBER:
		if (is_voter(m) && !m->config.keeps_members && chp_membership_lease_until_ns(m) <= now_ns)
			no_lease_text(m, now_ns, t);
		else
			member_text(m, t);
		break;
	}
}

void
chp_membership_peer_text(const struct chp_membership *m, uint64_t now_ns, uint32_t peer,
			 struct chp_text *t)
{
	const struct chp_membership_peer *p = &m->peer[peer];

	CHP_ASSERT_OP(peer, <, m->config.n_nodes);
	if (peer == m->config.self) {
		chp_text_add(t, "this node");
		return;
	}
	if (m->state == CHP_MEMBERSHIP_FORMING) {
		obstacle_text(m, now_ns, peer, t);
		return;
	}
	if (p->heard_ns == 0)
		chp_text_add(t, "never heard");
	else
		chp_text_add(t, "heard %" PRIu64 " ms ago", since(p->heard_ns, now_ns) / NS_PER_MS);
	if (m->state != CHP_MEMBERSHIP_MEMBER)
		return;
	if (!is_live(m, peer)) {
		bool waits = p->incarnation != 0 && p->incarnation != p->retired &&
			     is_recent(p->heard_ns, now_ns);

		chp_text_add(t, waits ? ", waits to be admitted" : ", not in the view");
		return;
	}
	if ((chp_membership_suspected(m) & chp_bit(peer)) != 0)
		chp_text_add(t, ", suspected");
	if (p->leaves)
		chp_text_add(t, ", asks to leave because of its host");
	if (has_heir(m, peer))
		chp_text_add(t, ", another process waits for its place");
	if (!is_recent(p->hears_us_ns, now_ns))
		chp_text_add(t, ", does not hear us");
	if (p->epoch < m->view.epoch)
		chp_text_add(t, ", not in the view yet");
}

/* ---- invariants ---- */

static void
check_founding(const struct chp_membership *m)
{
	if (m->founding.epoch == 0) {
		CHP_ASSERT_OP(m->founding_by, ==, 0u);
		return;
	}
	CHP_ASSERT_OP(m->state, ==, CHP_MEMBERSHIP_FORMING);
	CHP_ASSERT_OP(m->founding.incarnation[m->config.self], ==, m->incarnation);
	CHP_ASSERT(chp_founding_is_view(&m->founding, m->config.n_nodes, m->config.has_hosts,
					m->config.keeps_members));
	CHP_ASSERT(m->config.has_hosts || (m->founding_by & self_bit(m)) != 0);
	CHP_ASSERT((m->founding_by & ~chp_view_live(&m->founding)) == 0);
}

static void
check_view(const struct chp_membership *m)
{
	const struct chp_agreement *a = &m->agreement;
	const struct chp_view *v = &m->view;

	CHP_ASSERT((m->state == CHP_MEMBERSHIP_MEMBER) == (v->epoch != 0));
	if (v->epoch == 0) {
		CHP_ASSERT_OP(chp_membership_lease_until_ns(m), ==, 0u);
		CHP_ASSERT_OP(a->epoch, ==, 0u);
		return;
	}
	CHP_ASSERT(names_us(m, v));
	CHP_ASSERT_OP(v->epoch, ==, m->known_epoch);
	CHP_ASSERT((v->voters & v->learners) == 0);
	CHP_ASSERT(is_view(m, v));
	CHP_ASSERT_OP(a->epoch, ==, v->epoch + 1);
	CHP_ASSERT_OP(a->voters, ==, v->voters);
	chp_agreement_check(a);
	if (a->accepted_ballot != 0) {
		CHP_ASSERT(may_follow(m, &a->accepted));
		CHP_ASSERT(a->told == 0 || !may_ask(m));
	}
	CHP_ASSERT((a->promised == 0 && a->phase == CHP_AGREEMENT_IDLE) || is_voter(m));
	CHP_ASSERT(!is_voter(m) || m->config.n_nodes == 1 || CHP_MUTATED(P4_UNSUSPECTED_MAJORITY) ||
		   chp_membership_lease_until_ns(m) != CHP_NEVER);
}

void
chp_membership_check(const struct chp_membership *m)
{
	CHP_ASSERT_OP(m->incarnation, !=, 0u);
	CHP_ASSERT_OP(m->lives, >=, 1u);
	CHP_ASSERT_OP(m->lives, ==, m->counters.reborn + 1);
	check_founding(m);
	check_view(m);
	chp_detector_check(&m->detector);
	chp_detector_check(&m->heir_detector);
	CHP_ASSERT((m->heirs & ~(chp_view_live(&m->view) & ~self_bit(m))) == 0);
	CHP_ASSERT(m->heirs == 0 || m->config.keeps_members);
	CHP_ASSERT_OP(m->peer[m->config.self].due, ==, 0u);
	CHP_ASSERT_OP(m->peer[m->config.self].incarnation, ==, 0u);
	for (uint32_t i = 0; i < m->config.n_nodes; i++) {
		const struct chp_membership_peer *p = &m->peer[i];

		CHP_ASSERT(has_heir(m, i) == (m->heir[i].incarnation != 0));
		CHP_ASSERT(!has_heir(m, i) || m->heir[i].incarnation != m->view.incarnation[i]);
		CHP_ASSERT_OP(p->hello_interval_ns, >=, CHP_MEMBERSHIP_HELLO_NS_MIN);
		CHP_ASSERT_OP(p->hello_interval_ns, <=, CHP_MEMBERSHIP_HELLO_NS_MAX);
		CHP_ASSERT(m->state != CHP_MEMBERSHIP_REFUSED || p->due == 0);
		CHP_ASSERT((p->due & due_bit(CHP_CONTROL_FOUNDING)) == 0 || (m->founding_by & self_bit(m)) != 0);
		CHP_ASSERT((p->due & due_bit(CHP_CONTROL_DECIDED)) == 0 || m->view.epoch != 0);
		CHP_ASSERT((p->due & due_bit(CHP_CONTROL_GRANT)) == 0 || is_giver(m, m->config.self, &m->view));
		if (i != m->config.self && is_live(m, i))
			CHP_ASSERT_OP(p->incarnation, ==, m->view.incarnation[i]);
	}
}

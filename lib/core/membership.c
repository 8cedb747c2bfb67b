/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/membership.h"

#include "base/assert.h"
#include "base/crc32c.h"

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
};

#define NS_PER_MS UINT64_C(1000000)
#define PROPOSER 0u

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

/* ---- small questions ---- */

static uint64_t
all_members(const struct chp_membership *m)
{
	return UINT64_MAX >> (CHP_NODES_MAX - m->config.n_nodes);
}

/* Time since; peer_heard may have been told of a moment after this batch's. */
static uint64_t
since(uint64_t at_ns, uint64_t now_ns)
{
	return now_ns > at_ns ? now_ns - at_ns : 0;
}

static bool
is_recent(uint64_t at_ns, uint64_t now_ns)
{
	return at_ns != 0 && since(at_ns, now_ns) < CHP_MEMBERSHIP_ALIVE_NS;
}

static uint64_t
heard_full(const struct chp_membership *m, uint64_t now_ns)
{
	uint64_t mask = chp_bit(m->config.self);

	for (uint32_t i = 0; i < m->config.n_nodes; i++)
		if (is_recent(m->peer[i].heard_full_ns, now_ns))
			mask |= chp_bit(i);
	return mask;
}

uint64_t
chp_membership_heard(const struct chp_membership *m, uint64_t now_ns)
{
	uint64_t mask = chp_bit(m->config.self);

	for (uint32_t i = 0; i < m->config.n_nodes; i++)
		if (is_recent(m->peer[i].heard_ns, now_ns))
			mask |= chp_bit(i);
	return mask;
}

static bool
views_equal(const struct chp_view *a, const struct chp_view *b, uint32_t n_nodes)
{
	return a->epoch == b->epoch && a->voters == b->voters && a->learners == b->learners &&
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
	if ((p->its_heard_full & chp_bit(m->config.self)) == 0)
		return OBSTACLE_HEARING_US_SHORT;
	if (p->its_heard_full != all_members(m))
		return OBSTACLE_NOT_HEARING_OTHERS;
	return OBSTACLE_NONE;
}

/* ---- sending ---- */

/* There is news for a peer: say HELLO soon, and often again. */
static void
poke(struct chp_membership *m, uint64_t now_ns, uint32_t node)
{
	struct chp_membership_peer *p = &m->peer[node];

	p->hello_interval_ns = CHP_MEMBERSHIP_HELLO_NS_MIN;
	p->hello_at_ns = chp_min_u64(p->hello_at_ns, now_ns + CHP_MEMBERSHIP_HELLO_NS_MIN);
}

static void
poke_all(struct chp_membership *m, uint64_t now_ns, uint8_t due)
{
	for (uint32_t i = 0; i < m->config.n_nodes; i++) {
		if (i == m->config.self)
			continue;
		poke(m, now_ns, i);
		m->peer[i].due |= due;
	}
}

static uint8_t
due_bit(enum chp_control_type type)
{
	return (uint8_t)(1u << type);
}

/* It is time for a peer's HELLO and for whatever else it may have missed. */
static void
hello_peer(struct chp_membership *m, uint64_t now_ns, uint32_t node)
{
	struct chp_membership_peer *p = &m->peer[node];
	uint64_t quarter = p->hello_interval_ns / 4;

	p->due |= due_bit(CHP_CONTROL_HELLO);
	if ((p->its_heard_full & chp_bit(m->config.self)) == 0)
		p->due |= due_bit(CHP_CONTROL_HELLO_SHORT);
	if (m->state == CHP_MEMBERSHIP_FORMING && m->accepted.epoch != 0)
		p->due |= due_bit(CHP_CONTROL_ACCEPTED);
	if (m->state == CHP_MEMBERSHIP_SERVING && p->epoch < m->view.epoch)
		p->due |= due_bit(CHP_CONTROL_DECIDED);
	p->hello_at_ns = now_ns + chp_random_range(&m->random, 3 * quarter, 5 * quarter);
	p->hello_interval_ns = chp_min_u64(2 * p->hello_interval_ns, CHP_MEMBERSHIP_HELLO_NS_MAX);
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

static uint32_t
write_hello(const struct chp_membership *m, uint64_t now_ns, uint32_t node,
	    enum chp_control_type type, uint8_t *to)
{
	struct chp_control_hello *h = (void *)to;
	uint32_t len = type == CHP_CONTROL_HELLO ? m->config.payload_bytes : (uint32_t)sizeof(*h);

	memset(to, 0, len);
	write_header(m, node, type, &h->header);
	h->n_members = (uint8_t)m->config.n_nodes;
	h->flags = m->config.bootstrap ? CHP_HELLO_BOOTSTRAP : 0;
	h->payload_bytes = (uint16_t)m->config.payload_bytes;
	h->members_hash = m->members_hash;
	h->heard = chp_membership_heard(m, now_ns);
	h->heard_full = heard_full(m, now_ns);
	return len;
}

static uint32_t
write_view(const struct chp_membership *m, uint32_t node, enum chp_control_type type, uint8_t *to)
{
	const struct chp_view *view = type == CHP_CONTROL_DECIDED ? &m->view : &m->accepted;
	struct chp_control_view *v = (void *)to;
	struct chp_control_member *member = (void *)(v + 1);

	memset(v, 0, sizeof(*v));
	write_header(m, node, type, &v->header);
	v->epoch = view->epoch;
	v->voters = view->voters;
	v->learners = view->learners;
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
	r->reason = CHP_REFUSED_NOT_IN_VIEW;
	r->heard_ms = UINT32_MAX;
	if (p->heard_ns != 0 && p->incarnation == m->view.incarnation[node])
		r->heard_ms = (uint32_t)chp_min_u64(since(p->heard_ns, now_ns) / NS_PER_MS,
						    UINT32_MAX - 1);
	return sizeof(*r);
}

uint32_t
chp_membership_transmit(struct chp_membership *m, uint64_t now_ns, uint8_t *to, uint32_t *peer)
{
	for (uint32_t i = 0; i < m->config.n_nodes; i++) {
		uint32_t node = (m->next_send + i) % m->config.n_nodes;
		struct chp_membership_peer *p = &m->peer[node];
		enum chp_control_type type;
		uint32_t len;

		if (p->due == 0)
			continue;
		type = (enum chp_control_type)chp_first_bit(p->due);
		p->due &= (uint8_t)~due_bit(type);
		if (type == CHP_CONTROL_HELLO || type == CHP_CONTROL_HELLO_SHORT)
			len = write_hello(m, now_ns, node, type, to);
		else if (type == CHP_CONTROL_REFUSED)
			len = write_refused(m, now_ns, node, to);
		else
			len = write_view(m, node, type, to);
		chp_control_seal(to, len);
		m->next_send = (node + 1) % m->config.n_nodes;
		m->counters.tx_packets++;
		*peer = node;
		return len;
	}
	return 0;
}

uint64_t
chp_membership_wake_ns(const struct chp_membership *m)
{
	uint64_t wake_ns = CHP_NEVER;

	if (m->state == CHP_MEMBERSHIP_REFUSED)
		return CHP_NEVER;
	for (uint32_t i = 0; i < m->config.n_nodes; i++) {
		if (i == m->config.self)
			continue;
		if (m->peer[i].due != 0)
			return 0;
		wake_ns = chp_min_u64(wake_ns, m->peer[i].hello_at_ns);
	}
	return wake_ns;
}

/* ---- the first view ---- */

/* Every named incarnation has accepted the view that we accepted: it is in force. */
static void
enter_view(struct chp_membership *m, uint64_t now_ns)
{
	CHP_ASSERT_OP(m->state, ==, CHP_MEMBERSHIP_FORMING);
	CHP_ASSERT_OP(m->accepted.incarnation[m->config.self], ==, m->incarnation);
	m->view = m->accepted;
	m->state = CHP_MEMBERSHIP_SERVING;
	for (uint32_t i = 0; i < m->config.n_nodes; i++)
		m->peer[i].due &= (uint8_t)~due_bit(CHP_CONTROL_ACCEPTED);
	poke_all(m, now_ns, due_bit(CHP_CONTROL_DECIDED));
	report(m, "view %" PRIu64 " is in force: %" PRIu32 " members", m->view.epoch,
	       chp_count_bits(chp_view_live(&m->view)));
}

static void
enter_if_complete(struct chp_membership *m, uint64_t now_ns)
{
	if (m->state == CHP_MEMBERSHIP_FORMING && m->accepted.epoch != 0 &&
	    m->accepted_by == m->accepted.voters)
		enter_view(m, now_ns);
}

/* Bind this incarnation to a view, for ever. */
static void
accept_view(struct chp_membership *m, uint64_t now_ns, const struct chp_view *v)
{
	CHP_ASSERT_OP(m->accepted.epoch, ==, 0u);
	CHP_ASSERT_OP(v->incarnation[m->config.self], ==, m->incarnation);
	m->accepted = *v;
	m->accepted_by = chp_bit(m->config.self);
	m->accepted_ns = now_ns;
	for (uint32_t i = 0; i < m->config.n_nodes; i++) {
		m->peer[i].named_ns = now_ns;
		m->peer[i].other_ns = 0;
	}
	poke_all(m, now_ns, due_bit(CHP_CONTROL_ACCEPTED));
	enter_if_complete(m, now_ns);
}

/* The accepted view can't come: become a new incarnation, as a restart would, and start over. */
static void
abandon(struct chp_membership *m, uint64_t now_ns, uint32_t because)
{
	CHP_ASSERT_OP(m->state, ==, CHP_MEMBERSHIP_FORMING);
	m->counters.abandoned++;
	report(m, "the first view could not form because %s was restarted meanwhile: trying again",
	       node_text(m, because).text);
	do
		m->incarnation = chp_random_u64(&m->random);
	while (m->incarnation == 0);
	memset(&m->accepted, 0, sizeof(m->accepted));
	m->accepted_by = 0;
	for (uint32_t i = 0; i < m->config.n_nodes; i++) {
		m->peer[i].hears_us_ns = 0;
		m->peer[i].its_heard &= ~chp_bit(m->config.self);
		m->peer[i].its_heard_full &= ~chp_bit(m->config.self);
		m->peer[i].due &= (uint8_t)~due_bit(CHP_CONTROL_ACCEPTED);
	}
	poke_all(m, now_ns, due_bit(CHP_CONTROL_HELLO));
}

/* A named process has been replaced and silent for long: it will hardly accept any more. */
static void
abandon_if_hopeless(struct chp_membership *m, uint64_t now_ns)
{
	if (m->state != CHP_MEMBERSHIP_FORMING || m->accepted.epoch == 0)
		return;
	for (uint32_t i = 0; i < m->config.n_nodes; i++) {
		const struct chp_membership_peer *p = &m->peer[i];

		if (i != m->config.self && p->other_ns > p->named_ns &&
		    since(p->named_ns, now_ns) >= CHP_MEMBERSHIP_ABANDON_NS) {
			abandon(m, now_ns, i);
			return;
		}
	}
}

/* Node 0 accepts a view of all when all are fresh and hear each other; the others follow. */
static void
propose_if_ready(struct chp_membership *m, uint64_t now_ns)
{
	struct chp_view v = { .epoch = 1, .voters = all_members(m) };

	if (m->config.self != PROPOSER || !m->config.bootstrap || m->accepted.epoch != 0 ||
	    m->state != CHP_MEMBERSHIP_FORMING)
		return;
	for (uint32_t i = 0; i < m->config.n_nodes; i++) {
		if (i != m->config.self && obstacle_of(m, now_ns, i) != OBSTACLE_NONE)
			return;
		v.incarnation[i] = i == m->config.self ? m->incarnation : m->peer[i].incarnation;
		v.writer[i] = (uint16_t)(i + 1);
	}
	accept_view(m, now_ns, &v);
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

/* The process behind a peer's node id is another one than before, or the first. */
static void
new_incarnation(struct chp_membership *m, uint64_t now_ns, uint32_t from, uint64_t incarnation)
{
	struct chp_membership_peer *p = &m->peer[from];

	if (p->incarnation != 0)
		m->counters.new_incarnations++;
	/* A late packet of a process that was restarted looks the same, once or twice. */
	if (p->previous == incarnation && ++p->returns >= CHP_MEMBERSHIP_RETURNS_MAX &&
	    first_report(m, from, REPORT_TWO))
		report(m, "two processes run as %s: stop one of them", node_text(m, from).text);
	p->previous = p->incarnation;
	p->incarnation = incarnation;
	p->heard_ns = 0;
	p->heard_full_ns = 0;
	p->hears_us_ns = 0;
	p->epoch = 0;
	p->its_heard = 0;
	p->its_heard_full = 0;
	p->shorts = 0;
	p->our_shorts = 0;
	p->bootstrap = false;
	p->members_differ = false;
	poke(m, now_ns, from);
}

/* What every packet tells, whatever its type. */
static void
note_peer(struct chp_membership *m, uint64_t now_ns, const struct chp_control_header *h)
{
	struct chp_membership_peer *p = &m->peer[h->from];

	if (h->from_incarnation != p->incarnation)
		new_incarnation(m, now_ns, h->from, h->from_incarnation);
	p->heard_ns = now_ns;
	p->epoch = chp_max_u64(p->epoch, h->epoch);
	if (h->to_incarnation == m->incarnation)
		p->hears_us_ns = now_ns;
	if (m->state != CHP_MEMBERSHIP_FORMING || m->accepted.epoch == 0)
		return;
	if (h->from_incarnation == m->accepted.incarnation[h->from]) {
		p->named_ns = now_ns;
		/* It accepted our view, hence no other: that is the one it is in. */
		if (h->epoch >= m->accepted.epoch && (m->accepted_by & chp_bit(h->from)) != 0)
			m->accepted_by = m->accepted.voters;
	} else {
		p->other_ns = now_ns;
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

static void
on_hello(struct chp_membership *m, uint64_t now_ns, const struct chp_control_hello *h, uint32_t len)
{
	uint32_t from = h->header.from;
	struct chp_membership_peer *p = &m->peer[from];
	uint64_t self = chp_bit(m->config.self);
	/* What it says of us counts only if it means this incarnation. */
	uint64_t known = all_members(m);

	if (h->header.to_incarnation != m->incarnation)
		known &= ~self;
	p->bootstrap = (h->flags & CHP_HELLO_BOOTSTRAP) != 0;
	p->its_heard = h->heard & known;
	p->its_heard_full = h->heard_full & known;
	p->members_differ = h->n_members != m->config.n_nodes || h->members_hash != m->members_hash;
	if (p->members_differ) {
		m->counters.other_members++;
		if (first_report(m, from, REPORT_MEMBERS))
			report(m, "%s has other members or addresses in its cluster file than we",
			       node_text(m, from).text);
	}
	if (p->bootstrap && m->state == CHP_MEMBERSHIP_FORMING && m->config.self == PROPOSER &&
	    !m->config.bootstrap && first_report(m, from, REPORT_BOOTSTRAP))
		report(m, "%s was started with --bootstrap, but it is node %u that needs it",
		       node_text(m, from).text, PROPOSER);

	if (len >= m->config.payload_bytes) {
		if (!is_recent(p->heard_full_ns, now_ns))
			poke_all(m, now_ns, 0); /* whom we hear is news for everybody */
		p->heard_full_ns = now_ns;
		p->shorts = 0;
	} else if (!is_recent(p->heard_full_ns, now_ns)) {
		m->counters.short_only++;
		p->shorts++;
	}
	if ((p->its_heard & ~p->its_heard_full & self) != 0)
		p->our_shorts++;
	else
		p->our_shorts = 0;
	report_small_packets(m, from);
	if (m->state == CHP_MEMBERSHIP_SERVING && p->epoch < m->view.epoch)
		p->due |= due_bit(CHP_CONTROL_DECIDED);
}

/* The view of a packet; false where it is not a first view as every member would make it. */
static bool
read_view(struct chp_membership *m, const struct chp_control_view *from, struct chp_view *v)
{
	const struct chp_control_member *member = chp_control_view_members(from);
	bool ok = from->epoch == 1 && from->ballot == 0 && from->voters == all_members(m);

	*v = (struct chp_view){
		.epoch = from->epoch,
		.voters = from->voters,
		.learners = from->learners,
	};
	for (uint32_t i = 0; i < m->config.n_nodes; i++) {
		v->incarnation[i] = member[i].incarnation;
		v->writer[i] = member[i].writer;
		ok = ok && member[i].writer == i + 1;
	}
	if (!ok)
		m->counters.bad_view++;
	return ok;
}

/* Whether no process that a view names is known to have been replaced: we would wait in vain. */
static bool
names_whom_we_know(const struct chp_membership *m, const struct chp_view *v)
{
	for (uint32_t i = 0; i < m->config.n_nodes; i++) {
		uint64_t known = i == m->config.self ? m->incarnation : m->peer[i].incarnation;

		if (known != 0 && known != v->incarnation[i])
			return false;
	}
	return true;
}

static void
on_accepted(struct chp_membership *m, uint64_t now_ns, const struct chp_control_view *packet)
{
	uint32_t from = packet->header.from;
	struct chp_view v;

	if (m->state != CHP_MEMBERSHIP_FORMING) {
		if (m->peer[from].epoch < m->view.epoch)
			m->peer[from].due |= due_bit(CHP_CONTROL_DECIDED);
		return;
	}
	/* Only what the sender itself can have accepted. */
	if (!read_view(m, packet, &v) || v.incarnation[from] != packet->header.from_incarnation)
		return;
	if (m->accepted.epoch == 0) {
		if (m->peer[from].members_differ || !names_whom_we_know(m, &v))
			return;
		accept_view(m, now_ns, &v);
	}
	if (views_equal(&m->accepted, &v, m->config.n_nodes))
		m->accepted_by |= chp_bit(from);
	else if (m->accepted.incarnation[from] == packet->header.from_incarnation)
		abandon(m, now_ns, from); /* it can never accept ours */
}

static void
on_decided(struct chp_membership *m, const struct chp_control_view *packet)
{
	const struct chp_view *ours = m->state == CHP_MEMBERSHIP_SERVING ? &m->view : &m->accepted;
	struct chp_view v;

	if (!read_view(m, packet, &v) || v.incarnation[m->config.self] != m->incarnation)
		return; /* for an earlier incarnation of ours: who is in the view will refuse us */
	if (views_equal(ours, &v, m->config.n_nodes))
		m->accepted_by = v.voters;
	else
		m->counters.conflicts++;
}

static void
on_refused(struct chp_membership *m, const struct chp_control_refused *r)
{
	struct chp_text t = chp_text_of(m->reason, sizeof(m->reason));

	if (r->header.to_incarnation != m->incarnation)
		return;
	if (m->state != CHP_MEMBERSHIP_FORMING) {
		m->counters.conflicts++;
		return;
	}
	m->state = CHP_MEMBERSHIP_REFUSED;
	m->refused_by = r->header.from;
	for (uint32_t i = 0; i < m->config.n_nodes; i++)
		m->peer[i].due = 0;
	chp_text_add(&t, "%s refused us: in view %" PRIu64 " another process is node %u",
		     node_text(m, r->header.from).text, r->header.epoch, m->config.self);
	if (r->heard_ms < CHP_MEMBERSHIP_ALIVE_NS / NS_PER_MS)
		chp_text_add(&t, ", heard %u ms ago: it still runs, or this is its restart",
			     r->heard_ms);
	else
		chp_text_add(&t, ": this is its restart, which this version cannot take back");
	report(m, "%s", m->reason);
}

/* A process that the view does not name: the answer to it is no. */
static void
refuse(struct chp_membership *m, const struct chp_control_header *h)
{
	struct chp_membership_peer *p = &m->peer[h->from];

	if (h->type == CHP_CONTROL_REFUSED || h->type == CHP_CONTROL_DECIDED) {
		m->counters.conflicts++; /* it is in another view: no answer, so no ping-pong */
		return;
	}
	m->counters.refused_sent++;
	p->refuse_incarnation = h->from_incarnation;
	p->due |= due_bit(CHP_CONTROL_REFUSED);
}

static void
dispatch(struct chp_membership *m, uint64_t now_ns, const struct chp_control_header *h,
	 uint32_t len)
{
	switch ((enum chp_control_type)h->type) {
	case CHP_CONTROL_HELLO:
	case CHP_CONTROL_HELLO_SHORT:
		on_hello(m, now_ns, (const void *)h, len);
		break;
	case CHP_CONTROL_ACCEPTED:
		on_accepted(m, now_ns, (const void *)h);
		break;
	case CHP_CONTROL_DECIDED:
		on_decided(m, (const void *)h);
		break;
	case CHP_CONTROL_REFUSED:
		on_refused(m, (const void *)h);
		break;
	}
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
	if (m->state == CHP_MEMBERSHIP_SERVING &&
	    h->from_incarnation != m->view.incarnation[h->from]) {
		refuse(m, h);
		return;
	}
	note_peer(m, now_ns, h);
	dispatch(m, now_ns, h, len);
	enter_if_complete(m, now_ns);
	abandon_if_hopeless(m, now_ns);
	propose_if_ready(m, now_ns);
}

void
chp_membership_peer_heard(struct chp_membership *m, uint64_t now_ns, uint32_t peer,
			  uint64_t incarnation)
{
	CHP_ASSERT_OP(peer, <, m->config.n_nodes);
	if (m->state == CHP_MEMBERSHIP_SERVING && incarnation == m->peer[peer].incarnation &&
	    incarnation == m->view.incarnation[peer])
		m->peer[peer].heard_ns = now_ns;
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
	memset(m, 0, sizeof(*m));
	m->config = *config;
	m->incarnation = config->incarnation;
	m->random.state = config->incarnation;
	m->members_hash =
		chp_crc32c(config->address, config->n_nodes * sizeof(config->address[0]), 0);
	for (uint32_t i = 0; i < config->n_nodes; i++) {
		m->peer[i].hello_at_ns = now_ns;
		m->peer[i].hello_interval_ns = CHP_MEMBERSHIP_HELLO_NS_MIN;
	}
	propose_if_ready(m, now_ns);
}

void
chp_membership_tick(struct chp_membership *m, uint64_t now_ns)
{
	if (m->state == CHP_MEMBERSHIP_REFUSED)
		return;
	abandon_if_hopeless(m, now_ns);
	for (uint32_t i = 0; i < m->config.n_nodes; i++)
		if (i != m->config.self && now_ns >= m->peer[i].hello_at_ns)
			hello_peer(m, now_ns, i);
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
		chp_text_add(t, "not heard for %" PRIu64 " s",
			     since(p->heard_ns, now_ns) / (1000 * NS_PER_MS));
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
	case OBSTACLE_NOT_HEARING_OTHERS:
		chp_text_add(t, "does not hear %s",
			     node_text(m, chp_first_bit(all_members(m) & ~p->its_heard_full)).text);
		break;
	}
}

void
chp_membership_waiting(const struct chp_membership *m, uint64_t now_ns, struct chp_text *t)
{
	enum obstacle worst = OBSTACLE_NONE;
	uint32_t node = 0;

	if (m->state == CHP_MEMBERSHIP_SERVING) {
		chp_text_add(t, "in view %" PRIu64, m->view.epoch);
		return;
	}
	if (m->state == CHP_MEMBERSHIP_REFUSED) {
		chp_text_add(t, "%s", m->reason);
		return;
	}
	if (m->accepted.epoch != 0) {
		uint64_t missing = m->accepted.voters & ~m->accepted_by;

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
	if (worst != OBSTACLE_NONE) {
		chp_text_add(t, "waiting for %s: ", node_text(m, node).text);
		obstacle_text(m, now_ns, node, t);
		return;
	}
	if (m->config.self != PROPOSER && m->peer[PROPOSER].bootstrap)
		chp_text_add(t, "waiting for %s to begin the first view",
			     node_text(m, PROPOSER).text);
	else
		chp_text_add(t, "all members are ready: start %s with --bootstrap to form a new, "
			     "empty cluster", node_text(m, PROPOSER).text);
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
	if (m->state != CHP_MEMBERSHIP_SERVING) {
		obstacle_text(m, now_ns, peer, t);
		return;
	}
	if (p->heard_ns == 0) {
		chp_text_add(t, "never heard");
		return;
	}
	chp_text_add(t, "heard %" PRIu64 " ms ago", since(p->heard_ns, now_ns) / NS_PER_MS);
	if (!is_recent(p->hears_us_ns, now_ns))
		chp_text_add(t, ", does not hear us");
	if (p->epoch < m->view.epoch)
		chp_text_add(t, ", not in the view yet");
}

void
chp_membership_check(const struct chp_membership *m)
{
	const struct chp_view *v = m->state == CHP_MEMBERSHIP_SERVING ? &m->view : &m->accepted;

	CHP_ASSERT_OP(m->incarnation, !=, 0u);
	CHP_ASSERT((m->state == CHP_MEMBERSHIP_SERVING) == (m->view.epoch != 0));
	if (m->view.epoch != 0)
		CHP_ASSERT(views_equal(&m->view, &m->accepted, m->config.n_nodes));
	if (v->epoch != 0) {
		CHP_ASSERT_OP(v->incarnation[m->config.self], ==, m->incarnation);
		CHP_ASSERT_OP(v->voters, ==, all_members(m));
		CHP_ASSERT((m->accepted_by & chp_bit(m->config.self)) != 0);
		CHP_ASSERT((m->accepted_by & ~v->voters) == 0);
	} else {
		CHP_ASSERT_OP(m->accepted_by, ==, 0u);
	}
	CHP_ASSERT_OP(m->peer[m->config.self].due, ==, 0u);
	CHP_ASSERT_OP(m->peer[m->config.self].incarnation, ==, 0u);
	for (uint32_t i = 0; i < m->config.n_nodes; i++) {
		const struct chp_membership_peer *p = &m->peer[i];

		CHP_ASSERT_OP(p->hello_interval_ns, >=, CHP_MEMBERSHIP_HELLO_NS_MIN);
		CHP_ASSERT_OP(p->hello_interval_ns, <=, CHP_MEMBERSHIP_HELLO_NS_MAX);
		CHP_ASSERT(m->state == CHP_MEMBERSHIP_REFUSED ? p->due == 0 : true);
		CHP_ASSERT((p->due & due_bit(CHP_CONTROL_ACCEPTED)) == 0 ||
			   (m->state == CHP_MEMBERSHIP_FORMING && m->accepted.epoch != 0));
	}
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What is Hermes' alone: what its seeds are about, what its messages say of requests, what must hold of leases and
 * of keys that are Valid, which losses its views survive.
 */
#include "kind.h"

#include "base/mutation.h"
#include "wire/hermes.h"

#include <inttypes.h>
#include <string.h>

/* A protocol's tickets at one node: credits and replays. */
#define TICKETS_MAX 128u

/* What a node's ticket is about, by its last INV. */
struct ticket {
	uint64_t session, request, version;
	uint32_t generation;
};

struct watch {
	struct ticket ticket[SIM_NODES_MAX][TICKETS_MAX];
};

/* ------------------------------------------------------------------ profiles: what plain chance finds too seldom */

enum profile {
	MIX,     /* everything, in all sizes */
	CHURN,   /* keys that are deleted, forgotten, added again */
	VIEWS,   /* views in which nobody comes or goes */
	CONTEND, /* concurrent read-modify-writes of one key, and writers that die while they send */
	RETRY,   /* homes of sessions that die with requests in flight, and clients that are quick */
	STALE,   /* reads asked of who is cut off, or stood still */
	REBIRTH, /* restarts, and packets that arrive in another life */
	SPLIT,   /* proposers that are lost in the middle of agreeing */
};

_Static_assert(SPLIT + 1 == SIM_PROFILES, "each has its seeds");

/* Sessions, too, which are keys of which none comes again, while two nodes lose each other for a moment. */
static void
draw_session_churn(struct sim_config *c, struct chp_random *r)
{
	c->latency_ns_max = 60000;
	c->uneven_ns_max = 0;
	c->n_clients = 6;
	c->shard.keys_max = SIM_ONE_OF(r, 24, 40);
	c->close_ppm = 700000;
	c->partition_ppm = 60000;
	c->view_ppm = SIM_ONE_OF(r, 0, 2000);
	c->retry_ns_max = SIM_MS;
	sim_set_credits(c, SIM_ONE_OF(r, 1, 2, 4), 1);
	sim_set_load(c, 600, 100 * SIM_MS);
}

/*
 * Few keys that are deleted, forgotten and added again all the time, over slow or uneven links, so that floors differ
 * for long, and what one node says is old when it arrives.
 */
static void
draw_churn(struct sim_config *c, struct chp_random *r)
{
	sim_make_room(c);
	c->n_keys = SIM_ONE_OF(r, 4, 8, 12);
	c->n_clients = SIM_CLIENTS_MAX;
	c->roamer_ppm = 0;
	c->get_ppm = c->rmw_ppm = 0;
	c->delete_ppm = 800000;
	c->depth = 1;
	c->latency_ns_max = SIM_ONE_OF(r, 60000, 60000, 60000, 1000000);
	c->uneven_ns_max = SIM_ONE_OF(r, 1, 2, 5) * SIM_MS;
	c->lag_ns_max = SIM_ONE_OF(r, 1, 100000);
	sim_draw_times(c, r, 40 * SIM_MS);
	c->lease_ns = 25 * SIM_MS; /* a lease needs a round trip */
	c->drop_ppm = SIM_ONE_OF(r, 0, 0, 1000);
	c->view_ppm = SIM_ONE_OF(r, 100000, 200000, 400000);
	c->crash_ppm = SIM_ONE_OF(r, 0, 2000);
	c->ambush_ppm = c->trigger_ppm = 0;
	c->pause_ppm = c->partition_ppm = SIM_ONE_OF(r, 0, 5000);
	c->shard.keys_max = SIM_CLIENTS_MAX + c->n_keys + SIM_ONE_OF(r, 2, 6);
	sim_set_credits(c, SIM_ONE_OF(r, 4, 16), 1);
	sim_set_load(c, 800, 120 * SIM_MS);
	if (chp_random_chance(r, 300000))
		draw_session_churn(c, r);
}

/* Everything in flight is lost again and again, at one node sooner than at the other. */
static void
draw_views(struct sim_config *c, struct chp_random *r)
{
	sim_make_room(c);
	c->n_keys = SIM_ONE_OF(r, 1, 1, 2);
	c->n_clients = SIM_CLIENTS_MAX;
	c->view_ppm = SIM_ONE_OF(r, 50000, 200000);
	c->lag_ns_max = SIM_ONE_OF(r, 100000, 1000000, 3000000);
	c->latency_ns_max = SIM_ONE_OF(r, 60000, 500000, 2000000);
	c->rmw_ppm = SIM_ONE_OF(r, 300000, 700000);
	c->crash_ppm = SIM_ONE_OF(r, 0, 2000);
	c->partition_ppm = 0;
	sim_draw_times(c, r, 40 * SIM_MS);
	c->lease_ns = 25 * SIM_MS;
	sim_set_load(c, SIM_ONE_OF(r, 400, 800), 150 * SIM_MS);
}

/* Concurrent read-modify-writes of one key, and writers that die while they send. */
static void
draw_contend(struct sim_config *c, struct chp_random *r)
{
	sim_make_room(c);
	c->n_keys = 1;
	c->n_clients = SIM_CLIENTS_MAX;
	c->roamer_ppm = 0;
	c->rmw_ppm = 800000;
	c->delete_ppm = 0;
	c->latency_ns_max = SIM_ONE_OF(r, 60000, 300000, 1000000);
	c->uneven_ns_max = c->latency_ns_max;
	sim_draw_times(c, r, 20 * SIM_MS);
	c->lease_ns = 12 * SIM_MS;
	c->budget = SIM_REPAIRABLE;
	c->pause_ppm = c->partition_ppm = c->crash_ppm = c->trigger_ppm = 0;
	c->ambush_ppm = 30000;
	c->ambush_ns_max = 4 * c->latency_ns_max;
	c->down_ns_max = 5 * SIM_MS;
	c->retry_ns_min = 2 * c->latency_ns_max;
	sim_set_load(c, 600, 300 * SIM_MS);
}

/* Homes of sessions that die with requests in flight, clients that are quick, nodes that enter views at other times. */
static void
draw_retry(struct sim_config *c, struct chp_random *r)
{
	sim_make_room(c);
	c->n_keys = SIM_ONE_OF(r, 1, 2, 3);
	c->n_clients = (uint32_t)chp_random_range(r, 6, SIM_CLIENTS_MAX);
	c->roamer_ppm = 0;
	c->anywhere_ppm = 0;
	c->put_ppm = SIM_ONE_OF(r, 300000, 700000);
	c->rmw_ppm = 500000;
	c->delete_ppm = 0;
	c->latency_ns_max = SIM_ONE_OF(r, 30000, 100000, 300000);
	c->uneven_ns_max = c->latency_ns_max;
	sim_draw_times(c, r, 12 * SIM_MS);
	c->lease_ns = 6 * SIM_MS;
	c->lag_ns_max = SIM_ONE_OF(r, 1, 2, 8) * SIM_MS;
	c->budget = SIM_REPAIRABLE;
	c->pause_ppm = c->partition_ppm = c->crash_ppm = c->trigger_ppm = 0;
	c->ambush_ppm = 30000;
	c->ambush_ns_max = 6 * c->latency_ns_max;
	c->down_ns_max = 5 * SIM_MS;
	c->retry_ns_min = c->latency_ns_max;
	c->retry_ns_max = 3 * c->latency_ns_max;
	c->retry_ns_cap = 2 * SIM_MS;
	c->patience_ns_min = 200 * SIM_MS;
	c->shard.session_window = 8;
	c->depth = (uint32_t)chp_random_range(r, 1, 4);
	sim_set_credits(c, 16, 1);
	sim_set_load(c, 500, 250 * SIM_MS);
}

/* Reads asked of who is cut off or stood still, while the others go on. */
static void
draw_stale(struct sim_config *c, struct chp_random *r)
{
	sim_make_room(c);
	c->n_keys = SIM_ONE_OF(r, 1, 2);
	c->n_clients = SIM_CLIENTS_MAX;
	c->roamer_ppm = 400000;
	c->anywhere_ppm = 1000000;
	c->get_ppm = 500000;
	c->put_ppm = 700000;
	c->delete_ppm = 0;
	c->duplicate_ppm = 0;
	sim_draw_times(c, r, chp_random_range(r, 10, 20) * SIM_MS);
	c->long_ns = 3 * c->suspect_ns;
	c->whole_pauses = true;
	c->pause_ppm = SIM_ONE_OF(r, 10000, 40000);
	c->partition_ppm = SIM_ONE_OF(r, 0, 20000);
	c->point_ppm = SIM_ONE_OF(r, 0, 1000);
	c->client_cut_ppm = SIM_ONE_OF(r, 0, 10000);
	c->crash_ppm = 0;
	c->patience_ns_min = 100 * SIM_MS;
	sim_set_load(c, 600, 200 * SIM_MS);
}

/* Short lives, in which packets of earlier ones arrive. */
static void
draw_rebirth(struct sim_config *c, struct chp_random *r)
{
	sim_make_room(c);
	sim_draw_times(c, r, 10 * SIM_MS);
	c->late_ppm = SIM_ONE_OF(r, 20000, 100000, 300000);
	c->drop_ppm = SIM_ONE_OF(r, 0, 1000);
	c->budget = SIM_ONE_OF(r, SIM_REPAIRABLE, SIM_ROLLING);
	c->crash_ppm = 20000;
	c->down_ns_max = SIM_ONE_OF(r, 2, 10) * SIM_MS;
	c->pause_ppm = c->partition_ppm = 0;
	c->shard.link_window = SIM_ONE_OF(r, 16, 64);
	c->shard.copy_bytes = SIM_ONE_OF(r, 256, 1024);
	sim_set_load(c, 200, 400 * SIM_MS);
}

/* Proposers that are lost in the middle of agreeing, to the others or for good. */
static void
draw_split(struct sim_config *c, struct chp_random *r)
{
	sim_make_room(c);
	sim_draw_times(c, r, chp_random_range(r, 10, 20) * SIM_MS);
	c->long_ns = 5 * c->suspect_ns;
	c->trigger_ppm = 300000;
	c->partition_ppm = SIM_ONE_OF(r, 0, 10000);
	c->pause_ppm = SIM_ONE_OF(r, 0, 10000);
	c->crash_ppm = 10000;
	c->down_ns_max = SIM_ONE_OF(r, 5, 40) * SIM_MS;
	sim_set_load(c, 100, 400 * SIM_MS);
}

/* ------------------------------------------------------------------ what its messages say of requests */

static struct ticket *
ticket_of(struct sim_world *w, uint32_t n, uint32_t op)
{
	return &((struct watch *)w->watch)->ticket[n][op];
}

static void
on_inv(struct sim_world *w, uint32_t n, uint64_t epoch, const struct chp_hermes_inv *inv)
{
	if ((inv->inv_flags & CHP_INV_NACK) != 0)
		return;
	CHP_ASSERT_OP(inv->message.op, <, TICKETS_MAX);
	*ticket_of(w, n, inv->message.op) = (struct ticket){ .session = inv->session,
							   .request = inv->request,
							   .version = inv->version,
							   .generation = inv->generation };
	if (inv->session != 0)
		sim_once_begun(w, n, epoch, inv->session, inv->request, inv->version);
}

static void
on_val(struct sim_world *w, uint32_t n, uint64_t epoch, const struct chp_hermes_val *val)
{
	const struct ticket *t;

	CHP_ASSERT_OP(val->message.op, <, TICKETS_MAX);
	t = ticket_of(w, n, val->message.op);
	if (t->generation == val->generation && t->version == val->version)
		sim_once_executed(w, n, epoch, t->session, t->request, t->version);
}

static void
sends(struct sim_world *w, uint32_t n, const struct chp_peer_header *h, const struct chp_message *m)
{
	if (m->type == CHP_HERMES_INV)
		on_inv(w, n, h->epoch, (const void *)m);
	else if (m->type == CHP_HERMES_VAL)
		on_val(w, n, h->epoch, (const void *)m);
}

static bool
is_idle(const struct sim_world *w, uint32_t n)
{
	return chp_shard_is_idle(w->node[n].shard);
}

/* Tickets are of shards, which forget them. */
static void
forget(struct sim_world *w)
{
	(void)w;
}

static void
born(struct sim_world *w, uint32_t n)
{
	memset(ticket_of(w, n, 0), 0, TICKETS_MAX * sizeof(struct ticket));
}

/* ------------------------------------------------------------------ what must hold */

/* The view that a node's shard is in; scenarios give all nodes the world's. */
static const struct chp_view *
view_of(const struct sim_world *w, uint32_t n)
{
	return w->node[n].shard_view.epoch != 0 ? &w->node[n].shard_view : &w->view;
}

/*
 * What is Valid at two voters of one view has one version: it was acknowledged by all. A learner is behind until its
 * copy is complete, and nobody reads from it.
 */
static bool
agree(const struct sim_world *w, uint32_t a, uint32_t b)
{
	const uint64_t epoch = chp_shard_epoch(w->node[a].shard), both = chp_bit(a) | chp_bit(b);

	return epoch != 0 && epoch == chp_shard_epoch(w->node[b].shard) && (view_of(w, a)->voters & both) == both;
}

/* [SAFETY 16] Without a lease nothing is answered that follows from what this replica holds. */
static void
ran(struct sim_world *w, uint32_t n, const struct chp_now *now)
{
	const struct chp_native *f = &w->node[n].native;

	if (now->ns < now->lease_until_ns)
		return;
	for (uint32_t i = 0; i < f->n_used; i++) {
		const struct chp_native_datagram *d = &f->datagram[i];
		uint32_t offset = sizeof(struct chp_reply_header);
		const struct chp_reply_message *r;

		while ((r = chp_reply_next(d->data, d->len, &offset)) != NULL)
			if ((r->opcode == CHP_OPCODE_GET && r->status == CHP_STATUS_OK) ||
			    r->status == CHP_STATUS_NOT_FOUND || r->status == CHP_STATUS_EXISTS ||
			    r->status == CHP_STATUS_COMPARE_FAILED || r->status == CHP_STATUS_NOT_NUMBER)
				sim_fail(w, "node %u answers %s to %s without a lease", n, chp_status_name(r->status),
					 chp_opcode_name(r->opcode));
	}
}

/* ------------------------------------------------------------------ messages in words */

static void
print_inv(FILE *out, const struct chp_hermes_inv *m)
{
	const bool session = (m->inv_flags & CHP_INV_SESSION) != 0;
	const bool tombstone = (m->inv_flags & CHP_INV_TOMBSTONE) != 0;

	fprintf(out, "INV%s%s%s%s ", (m->inv_flags & CHP_INV_NACK) != 0 ? " nack" : "",
		(m->inv_flags & CHP_INV_REPLAY) != 0 ? " replay" : "",
		(m->inv_flags & CHP_INV_RMW) != 0 ? " rmw" : "",
		(m->inv_flags & CHP_INV_FORGET) != 0 ? " forget" : "");
	if (session) {
		uint64_t id;

		memcpy(&id, chp_hermes_inv_key(m), sizeof(id));
		fputs("session ", out);
		sim_print_session(out, id);
	} else {
		fputs("k=", out);
		sim_print_bytes(out, chp_hermes_inv_key(m), m->key_len);
	}
	sim_print_version(out, &sim_hermes, " ", m->version);
	if ((m->inv_flags & CHP_INV_BASE_UNKNOWN) != 0)
		fputs(" base ?", out);
	else
		sim_print_version(out, &sim_hermes, " base ", m->base);
	if (session) {
		fputs(tombstone ? " close" : " open", out);
	} else if (tombstone) {
		fputs(" deleted", out);
	} else {
		fputs(" \"", out);
		sim_print_bytes(out, chp_hermes_inv_value(m), m->value_total);
		fputc('"', out);
	}
	if (m->session != 0) {
		fputs(" for ", out);
		sim_print_session(out, m->session);
		fprintf(out, " req %" PRIu64, m->request);
	}
}

static void
print(FILE *out, const struct chp_message *m)
{
	switch (m->type) {
	case CHP_HERMES_INV:
		print_inv(out, (const void *)m);
		break;
	case CHP_HERMES_ACK:
		sim_print_version(out, &sim_hermes, "ACK ", ((const struct chp_hermes_ack *)(const void *)m)->version);
		break;
	case CHP_HERMES_VAL:
		sim_print_version(out, &sim_hermes, "VAL ", ((const struct chp_hermes_val *)(const void *)m)->version);
		break;
	case CHP_HERMES_FLOOR:
		fprintf(out, "FLOOR %" PRIu64, ((const struct chp_hermes_floor *)(const void *)m)->counter);
		break;
	case CHP_HERMES_EVICTED:
		fprintf(out, "EVICTED %" PRIu64, ((const struct chp_hermes_floor *)(const void *)m)->counter);
		break;
	case CHP_HERMES_FETCH:
		fputs("FETCH", out);
		break;
	case CHP_HERMES_FETCHED:
		sim_print_version(out, &sim_hermes, "FETCHED ",
				  ((const struct chp_hermes_fetched *)(const void *)m)->version);
		break;
	case CHP_HERMES_STORED:
		sim_print_version(out, &sim_hermes, "STORED ",
				  ((const struct chp_hermes_ack *)(const void *)m)->version);
		break;
	default:
		fprintf(out, "message 0x%02x", m->type);
	}
}

/* Views and links begin with the floor; most are 0, and say nothing. */
static bool
is_dull(const struct chp_message *m)
{
	if (m->type == CHP_HERMES_EVICTED)
		return true; /* what it says shows in versions */
	return m->type == CHP_HERMES_FLOOR && ((const struct chp_hermes_floor *)(const void *)m)->counter == 0;
}

/* ------------------------------------------------------------------ the kind */

/* Where some mutations are found soonest; the others are everywhere. */
static const struct sim_ground grounds[] = {
	{ CHP_MUTATION_S6_STALE_INV, 5, CHURN, NULL },
	{ CHP_MUTATION_S7_ABORT_WITHOUT_BASE, 3, VIEWS, NULL },
	{ CHP_MUTATION_S8_TRANS_NOT_RESENT, 3, VIEWS, NULL },
	{ CHP_MUTATION_S12_NO_CREDITS, 3, CHURN, NULL },
	{ CHP_MUTATION_P9_RMW_ACKS_KEPT, 3, CONTEND, NULL },
	{ CHP_MUTATION_P37_OWN_VALUE, 5, SPLIT, NULL },
	{ CHP_MUTATION_P45_PUT_RETRIED, 3, RETRY, NULL },
	{ CHP_MUTATION_P52_ANY_INCARNATION, 3, REBIRTH, NULL },
	{ CHP_MUTATION_S16_CLOCK_BEFORE_EVENTS, 3, STALE, NULL },
	{ CHP_MUTATION_S25_NO_BARRIER, 3, RETRY, NULL },
	/*
	 * What no history can show, because links are FIFO and an old home's late answers are not believed: there the
	 * messages themselves must differ from what a scenario says.
	 */
	{ .mutation = CHP_MUTATION_S25_RECORD_ON_ADOPTION, .scenario = "tests/scenarios/home_moves_not_adopted.txt" },
	{ .mutation = CHP_MUTATION_NONE },
};

const struct sim_kind sim_hermes = {
	.protocol = &chp_hermes,
	.watch_bytes = sizeof(struct watch),
	.by_writer = true,
	.draw = { [CHURN] = draw_churn, [VIEWS] = draw_views, [CONTEND] = draw_contend, [RETRY] = draw_retry,
		  [STALE] = draw_stale, [REBIRTH] = draw_rebirth, [SPLIT] = draw_split },
	.grounds = grounds,
	.bearable = sim_faults_views_bearable,
	.whole = sim_faults_whole,
	.is_idle = is_idle,
	.born = born,
	.forget = forget,
	.ran = ran,
	.sends = sends,
	.agree = agree,
	.print = print,
	.is_dull = is_dull,
};

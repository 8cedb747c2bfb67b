/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * zab.c - ZAB: a leader, one log in one order everywhere (Junqueira et al., DSN'11; Istvan et al., NSDI'16, 5).
 *
 * Replicas without a leader look for one in rounds: in round r the candidate is the next node id in a circle, so
 * all propose the same one. Who has a quorum of votes takes a new epoch, learns from a quorum what it must not
 * lose, fetches what it lacks, makes every follower's log a prefix of its own, and then broadcasts: an
 * operation becomes an entry of the log, goes to all, and is committed when a quorum has it and everything
 * before it. Rules are numbered as in docs/protocols/zab.md.
 *
 *   Z1 election            look(), on_look(), try_lead()       Z7 acknowledging     acknowledge(), on_ack()
 *   Z2 new epoch           on_newepoch(), follow()             Z8 commit            advance(), on_commit(), apply()
 *   Z3 choice of history   choose_history(), on_pull()         Z9 reads             read_here(), serve_reads()
 *   Z4 synchronisation     sync_follower(), on_newleader()     Z10 leader lease     beat(), on_beat(), on_beat_ack()
 *   Z5 established         on_ackld(), establish()             Z11 recovery         recover(), on_recovered()
 *   Z6 proposing           propose(), pump(), on_propose()     Z12 quorum rule      zab_quorum.h
 *
 * Deviations from the papers: a zxid is (epoch, index), and the index goes on across epochs, so that a hole is
 * a gap in the index and the index of an entry is the version of its key; broadcast and DIFF are one stream that
 * is read from the log at each follower's own pace, so that a slow or dead follower never stops the leader
 * (SAFETY 13); a node that restarted has lost its memory and recovers (SAFETY 23); leases (SAFETY 18).
 *
 * Invariants (zab_check): applied <= committed <= last entry; the cache holds what is applied, nothing else; only
 * a leader has proposals of clients open.
 */
#include "protocols/zab_state.h"

#include "base/histogram.h"
#include "base/mutation.h"
#include "protocols/application.h"
#include "protocols/home.h"
#include "protocols/zab_history.h"

#include <inttypes.h>
#include <string.h>

#define NONE CHP_ZAB_NONE

/* Entries sent to one follower in one run: a sync must not hold up what else the shard does. */
#define PUMP_MAX 256u
/* Entries applied in one run: the same. */
#define APPLY_MAX (4u * CHP_BATCH_MAX)
/* Slots emptied in one run before a copy. */
#define CLEAR_MAX 1024u
/* A leader says that it lives this often within an election time-out: three may be lost or late. */
#define BEATS 4u
/* See next_epoch(). */
#define EPOCH_SHIFT 16u

/* ------------------------------------------------------------------ small things */

static uint64_t
others(const struct chp_zab *z)
{
	return chp_view_live(&z->view) & ~chp_bit(z->env.self);
}

static uint64_t
last_index(const struct chp_zab *z)
{
	return z->env.log->next - 1;
}

/* [Z1] Whom all propose in a round: with several shards leaders are spread over the nodes. */
static uint32_t
candidate(const struct chp_zab *z, uint64_t round)
{
	return (uint32_t)((round - 1 + z->env.shard) % z->env.n_nodes);
}

/* Twice the drift: our clock may be slow while the other's is fast. */
static uint64_t
drift_ns(const struct chp_zab *z, uint64_t ns)
{
	return ns / 1000000 * 2 * z->env.clock_drift_ppm + ns % 1000000 * 2 * z->env.clock_drift_ppm / 1000000 + 1;
}

/* Replicas lose patience one after the other, the next candidate first, so that most find a leader at once. */
static uint64_t
patience_ns(const struct chp_zab *z)
{
	const uint32_t turn = (z->env.self + z->env.n_nodes - candidate(z, z->round + 1)) % z->env.n_nodes;

	return z->env.election_ns + z->env.election_ns / 8 * chp_min_u32(turn, 8);
}

bool
chp_zab_serves(const struct chp_zab *z)
{
	return z->is_leader && z->phase == CHP_ZAB_BROADCAST && z->applied >= z->initial;
}

/* Until when this leader is sure that nobody else is one (SAFETY 18); 0 without a lease. */
static uint64_t
lease_until_ns(const struct chp_zab *z)
{
	const uint64_t lease = z->env.leader_lease_ns;

	if (!chp_zab_serves(z) || lease == 0)
		return 0;
	if (z->env.n_nodes == 1)
		return CHP_NEVER;
	return z->confirmed_ns == 0 ? 0 : z->confirmed_ns + lease - chp_min_u64(lease, drift_ns(z, lease));
}

/*
 * Votes that count: cast in a view that we have entered, because then we know of every incarnation that the voter
 * knows to be superseded, and have forgotten what that one said (SAFETY 23).
 */
static uint64_t
counted(const struct chp_zab *z, uint64_t mask)
{
	for (uint64_t p = mask & ~chp_bit(z->env.self); p != 0; p &= p - 1)
		if (z->peer[chp_first_bit(p)].view > z->view.epoch && !CHP_MUTATED(S23_SUPERSEDED_VOTE))
			mask &= ~chp_bit(chp_first_bit(p));
	return mask;
}

static bool
is_quorum(const struct chp_zab *z, uint64_t mask)
{
	return chp_count_bits(counted(z, mask)) >= z->quorum;
}

/* Whether a message is of the term that we follow. */
static bool
is_my_leader(struct chp_zab *z, uint32_t from, uint64_t epoch)
{
	if (from == z->leader && !z->is_leader && epoch == z->accepted_epoch)
		return true;
	z->env.zab_counters->stale_epoch++;
	return false;
}

/* Whether a message is of the term that we lead. */
static bool
is_my_follower(struct chp_zab *z, uint64_t epoch)
{
	if (z->is_leader && epoch == z->accepted_epoch)
		return true;
	z->env.zab_counters->stale_epoch++;
	return false;
}

static struct chp_message
header(enum chp_zab_type type, uint32_t bytes)
{
	return (struct chp_message){ .type = (uint8_t)type, .len = (uint16_t)bytes, .op = CHP_OP_NONE };
}
#define HEADER(type, m) header(type, (uint32_t)sizeof(m))

/* ------------------------------------------------------------------ client operations that wait */

uint8_t *
chp_zab_key_of_op(const struct chp_zab *z, uint32_t i)
{
	return z->op_key + (size_t)i * CHP_KEY_BYTES_MAX;
}

uint8_t *
chp_zab_value_of_op(const struct chp_zab *z, uint32_t i)
{
	return z->op_value + (size_t)i * z->env.value_bytes_max;
}

void
chp_zab_push(struct chp_zab *z, struct chp_zab_list *l, uint32_t i)
{
	z->op[i].next = NONE;
	if (l->head == NONE)
		l->head = i;
	else
		z->op[l->tail].next = i;
	l->tail = i;
}

uint32_t
chp_zab_pop(struct chp_zab *z, struct chp_zab_list *l)
{
	const uint32_t i = l->head;

	if (i != NONE)
		l->head = z->op[i].next;
	return i;
}

static void
push(struct chp_zab *z, enum chp_zab_wait id, uint32_t i)
{
	chp_zab_push(z, &z->list[id], i);
}

static uint32_t
pop(struct chp_zab *z, enum chp_zab_wait id)
{
	return chp_zab_pop(z, &z->list[id]);
}

/*
 * [Z12] How many of `n` places an operation leaves. The last is kept for a switch to "majority": under "all" a dead
 * member makes everything wait, and only that frees it.
 */
static uint32_t
kept_of(const struct chp_op *op, uint32_t n)
{
	const bool frees = op->opcode == CHP_OPCODE_QUORUM && op->arg == CHP_ZAB_MAJORITY;

	return frees || n == 1 ? 0 : 1;
}

static bool
has_op(const struct chp_zab *z, const struct chp_op *from)
{
	return z->n_open_ops + kept_of(from, z->env.ops) < z->env.ops;
}

static uint32_t
take_op(struct chp_zab *z, const struct chp_op *from)
{
	uint32_t i;

	if (!has_op(z, from))
		return NONE;
	i = pop(z, CHP_ZAB_OP_FREE);
	z->op[i] = (struct chp_zab_op){ .origin = from->origin,
				       .session = from->session,
				       .request = from->request,
				       .arg = from->arg,
				       .next = NONE,
				       .opcode = from->opcode,
				       .key_len = (uint8_t)from->key.len,
				       .is_relaxed = from->is_relaxed };
	if (from->key.len > 0)
		memcpy(chp_zab_key_of_op(z, i), from->key.bytes, from->key.len);
	z->n_open_ops++;
	return i;
}

static void
release_op(struct chp_zab *z, uint32_t i)
{
	push(z, CHP_ZAB_OP_FREE, i);
	z->n_open_ops--;
}

static void
answer_op(struct chp_zab *z, uint32_t i, uint8_t status, uint64_t version, uint64_t number, struct chp_out *out)
{
	const struct chp_zab_op *op = &z->op[i];
	const struct chp_reply r = { .origin = &op->origin,
				     .session = op->session,
				     .request = op->request,
				     .version = version,
				     .number = number,
				     .opcode = op->opcode,
				     .status = status,
				     .is_relaxed = op->is_relaxed };

	out->reply(out, &r);
	release_op(z, i);
}

/* Answer an operation that was not begun. An open that is refused says which one it was. */
static void
refuse(const struct chp_op *op, uint8_t status, uint64_t number, struct chp_out *out)
{
	struct chp_reply r = { .origin = &op->origin,
			       .session = op->session,
			       .request = op->request,
			       .number = number,
			       .opcode = op->opcode,
			       .status = status };

	if (op->opcode == CHP_OPCODE_SESSION_OPEN)
		memcpy(&r.number, op->key.bytes, sizeof(r.number));
	out->reply(out, &r);
}

static bool
is_write(uint8_t opcode)
{
	return opcode != CHP_OPCODE_GET && opcode != CHP_OPCODE_PING && opcode != CHP_OPCODE_QUORUM;
}

/*
 * Who waited for this term to go on is told that it does not. What became of a proposal is not known. A session's
 * client asks the next leader, whose log knows; without a session nobody may do it again.
 */
static void
refuse_waiting(struct chp_zab *z, struct chp_out *out)
{
	while (out->replies_left > 0) {
		const uint32_t i = pop(z, CHP_ZAB_OP_REFUSE);
		const struct chp_zab_op *op;

		if (i == NONE)
			return;
		op = &z->op[i];
		if (!op->is_begun && op->session == 0 && is_write(op->opcode)) {
			z->env.counters->busy++; /* it waited for its key */
			answer_op(z, i, CHP_STATUS_BUSY, 0, 0, out);
		} else if (op->session == 0 && is_write(op->opcode) && op->opcode != CHP_OPCODE_SESSION_OPEN) {
			z->env.counters->unknown++;
			answer_op(z, i, CHP_STATUS_UNKNOWN_OUTCOME, 0, 0, out);
		} else if (op->opcode == CHP_OPCODE_SESSION_OPEN) {
			uint64_t id;

			memcpy(&id, chp_zab_key_of_op(z, i), sizeof(id));
			answer_op(z, i, CHP_STATUS_NOT_SERVING, 0, id, out);
		} else if (z->leader != CHP_NODES_MAX && !z->is_leader) {
			answer_op(z, i, CHP_STATUS_REDIRECT, 0, z->leader, out);
		} else {
			answer_op(z, i, CHP_STATUS_NOT_SERVING, 0, 0, out);
		}
	}
}

/* ------------------------------------------------------------------ terms */

/* Nothing of this term goes on: neither what we led nor what we followed. */
static void
leave_term(struct chp_zab *z)
{
	const struct chp_log *l = z->env.log;
	uint32_t i;

	for (uint64_t at = z->is_leader ? z->answered + 1 : l->next; at < l->next; at++) {
		i = z->waiter[at & l->mask];
		z->waiter[at & l->mask] = NONE;
		if (i != NONE)
			push(z, CHP_ZAB_OP_REFUSE, i);
	}
	while ((i = pop(z, CHP_ZAB_OP_CONFIRM)) != NONE)
		push(z, CHP_ZAB_OP_REFUSE, i);
	while ((i = pop(z, CHP_ZAB_OP_SYNC)) != NONE)
		push(z, CHP_ZAB_OP_REFUSE, i);
	while ((i = pop(z, CHP_ZAB_OP_STABLE)) != NONE)
		push(z, CHP_ZAB_OP_REFUSE, i);
	if (z->is_backed)
		chp_zab_slow_leave(z);
	z->answered = z->applied;
	z->stable = z->durable_sent = 0;
	if (z->phase >= CHP_ZAB_DISCOVERY)
		z->env.zab_counters->step_downs++;
	chp_zab_pending_clear(&z->pending);
	for (uint32_t n = 0; n < z->env.n_nodes; n++) {
		struct chp_zab_peer *p = &z->peer[n];

		p->sent = p->acked = p->durable = p->commit_sent = p->stable_sent = p->echo_ns = p->read_id = 0;
		p->uptodate_due = false;
	}
	z->is_leader = z->synced = z->sync_begun = z->read_open = z->acks_changed = false;
	z->leader = CHP_NODES_MAX;
	z->ackepoch = z->ackld = 0;
	z->pulling = z->pull_to = NONE;
	z->confirmed_ns = z->beat_ns = z->sync_end = z->pull_end = 0;
	chp_copy_stop(&z->copy);
	chp_copy_serve_to(&z->copy, 0);
}

static void try_lead(struct chp_zab *z, const struct chp_now *now, struct chp_out *out);
static void recover(struct chp_zab *z, const struct chp_now *now, struct chp_out *out);

/* @param round  that the vote is for; 0: none, it only says what we have accepted, or with JOIN asks to be led */
static void
send_look(const struct chp_zab *z, uint32_t to, uint64_t round, uint64_t flags, struct chp_out *out)
{
	struct chp_zab_look *m = chp_send(out, to, sizeof(*m));

	*m = (struct chp_zab_look){ .message = HEADER(CHP_ZAB_LOOK, *m),
				    .round = round,
				    .accepted_epoch = z->accepted_epoch,
				    .view = z->view.epoch,
				    .look_flags = flags };
}

/* [Z1] There is no leader: vote, in a round, for the candidate that all others know to be this round's, too. */
static void
look(struct chp_zab *z, const struct chp_now *now, uint64_t round, struct chp_out *out)
{
	leave_term(z);
	if (z->recovering) {
		recover(z, now, out);
		return;
	}
	z->env.zab_counters->elections++;
	z->phase = CHP_ZAB_LOOKING;
	z->round = round;
	/* Whoever's link is down will not lead. */
	for (uint32_t i = 1; i < z->env.n_nodes; i++) {
		const uint32_t n = candidate(z, z->round);

		if (n == z->env.self || z->peer[n].linked)
			break;
		z->round++;
	}
	z->deadline_ns = now->ns + patience_ns(z);
	for (uint64_t p = others(z); p != 0; p &= p - 1)
		send_look(z, chp_first_bit(p), z->round, 0, out);
	try_lead(z, now, out);
}

/* The votes of this round. */
static uint64_t
votes(const struct chp_zab *z)
{
	uint64_t mask = chp_bit(z->env.self);

	for (uint64_t p = others(z); p != 0; p &= p - 1)
		if (z->peer[chp_first_bit(p)].round == z->round)
			mask |= chp_bit(chp_first_bit(p));
	return mask;
}

/* Whether a lease that we gave forbids to help anybody else to lead (SAFETY 18). */
static bool
is_promised(const struct chp_zab *z, const struct chp_now *now, uint32_t to)
{
	return now->ns < z->promised_until_ns && z->promised_to != to && !CHP_MUTATED(S18_VOTE_DURING_LEASE);
}

static void
send_newepoch(struct chp_zab *z, uint32_t to, struct chp_out *out)
{
	struct chp_zab_newepoch *m = chp_send(out, to, sizeof(*m));

	*m = (struct chp_zab_newepoch){ .message = HEADER(CHP_ZAB_NEWEPOCH, *m),
					.round = z->round,
					.epoch = z->accepted_epoch,
					.serial = ++z->peer[to].asked };
}

static void choose_history(struct chp_zab *z, const struct chp_now *now, struct chp_out *out);

/*
 * An epoch that nobody else takes or took: counter << 16 | writer number of our incarnation. Two candidates may count
 * from the same epochs, and a restarted one may not know of the epoch that its predecessor took, in which somebody
 * has entries: logs that name one epoch for one index must be equal up to there.
 */
static uint64_t
next_epoch(const struct chp_zab *z, uint64_t accepted)
{
	uint64_t counter = (accepted >> EPOCH_SHIFT) + 1;

	CHP_ASSERT_OP(accepted, <, CHP_ZAB_EPOCH_MAX);
	/* No counter is two nodes': clients are told that alone. */
	while (counter % z->env.n_nodes != (z->env.self + 1) % z->env.n_nodes)
		counter++;
	return counter << EPOCH_SHIFT | z->view.writer[z->env.self];
}

/* [Z2] The candidate of the round with a quorum of votes takes an epoch above all that they have accepted. */
static void
try_lead(struct chp_zab *z, const struct chp_now *now, struct chp_out *out)
{
	const uint64_t v = counted(z, votes(z));
	uint64_t epoch = z->accepted_epoch;

	if (z->phase != CHP_ZAB_LOOKING || candidate(z, z->round) != z->env.self || chp_count_bits(v) < z->quorum ||
	    is_promised(z, now, z->env.self))
		return;
	for (uint64_t p = v & ~chp_bit(z->env.self); p != 0; p &= p - 1)
		epoch = chp_max_u64(epoch, z->peer[chp_first_bit(p)].accepted_epoch);
	if (epoch >= CHP_ZAB_EPOCH_MAX)
		return; /* nobody comes this far; a peer that says so may stop the cluster, not the process */
	z->accepted_epoch = next_epoch(z, epoch);
	z->phase = CHP_ZAB_DISCOVERY;
	z->is_leader = true;
	z->leader = z->env.self;
	z->ackepoch = chp_bit(z->env.self);
	z->deadline_ns = now->ns + 2 * z->env.election_ns;
	z->beat_at_ns = now->ns;
	for (uint64_t p = others(z); p != 0; p &= p - 1)
		send_newepoch(z, chp_first_bit(p), out);
	choose_history(z, now, out);
}

/* We lead, but somebody has accepted a later epoch than ours and cannot follow: take one above it. */
static void
lead_again(struct chp_zab *z, const struct chp_now *now, struct chp_out *out)
{
	look(z, now, z->round + z->env.n_nodes, out);
}

static void
on_look(struct chp_zab *z, const struct chp_now *now, const struct chp_peer_message *pm, struct chp_out *out)
{
	const struct chp_zab_look *m = (const void *)pm->message;
	struct chp_zab_peer *p = &z->peer[pm->from];

	z->env.zab_counters->look_received++;
	if (m->round != 0)
		p->round = m->round;
	p->view = m->view;
	p->accepted_epoch = m->accepted_epoch;
	if (z->recovering)
		return;
	if (z->is_leader) {
		if (m->accepted_epoch > z->accepted_epoch) {
			lead_again(z, now, out);
			return;
		}
		if (m->round == 0 && (m->look_flags & CHP_ZAB_JOIN) == 0)
			return;
		/* It comes late, or its link was reset: from the beginning. */
		z->ackepoch &= ~chp_bit(pm->from);
		p->sent = 0;
		send_newepoch(z, pm->from, out);
		return;
	}
	if (m->round == 0)
		return;
	if (pm->from == z->promised_to)
		z->promised_until_ns = 0; /* it leads no more, and says so behind all that it said as a leader */
	if (pm->from == z->leader)
		look(z, now, chp_max_u64(z->round + 1, m->round), out);
	else if (z->phase != CHP_ZAB_LOOKING)
		return; /* we have a leader */
	else if (m->round > z->round)
		look(z, now, m->round, out);
	else if (m->round < z->round)
		send_look(z, pm->from, z->round, 0, out);
	try_lead(z, now, out);
}

static void
own_history(const struct chp_zab *z, struct chp_zab_history *h)
{
	chp_zab_history_of(z->env.log, z->committed, h);
	h->current_epoch = z->current_epoch;
	h->flags = z->incomplete ? CHP_ZAB_INCOMPLETE : 0;
}

/* ACKEPOCH and PULL say the same: what our log holds. */
static void
send_history(const struct chp_zab *z, enum chp_zab_type type, uint32_t to, uint64_t serial, struct chp_out *out)
{
	struct chp_zab_ackepoch *m = chp_send(out, to, sizeof(*m));

	*m = (struct chp_zab_ackepoch){ .message = HEADER(type, *m),
					.epoch = z->accepted_epoch,
					.view = z->view.epoch,
					.serial = serial };
	own_history(z, &m->history);
}

/* [Z2] Follow the leader of a new epoch: nothing older is accepted from now on. */
static void
follow(struct chp_zab *z, const struct chp_now *now, uint32_t leader, const struct chp_zab_newepoch *m,
       struct chp_out *out)
{
	leave_term(z);
	z->phase = CHP_ZAB_DISCOVERY;
	z->leader = leader;
	z->round = m->round;
	z->accepted_epoch = m->epoch;
	z->deadline_ns = now->ns + patience_ns(z);
	z->env.zab_counters->epochs_seen++;
	send_history(z, CHP_ZAB_ACKEPOCH, leader, m->serial, out);
}

static void
on_newepoch(struct chp_zab *z, const struct chp_now *now, const struct chp_peer_message *pm, struct chp_out *out)
{
	const struct chp_zab_newepoch *m = (const void *)pm->message;
	const uint64_t lease = lease_until_ns(z);

	if (z->recovering) {
		/* Only who answered as the established leader of the greatest epoch, in that epoch (SAFETY 23). */
		if (pm->from == z->recover_from && m->epoch == z->accepted_epoch)
			follow(z, now, pm->from, m, out);
		return;
	}
	if (m->epoch < z->accepted_epoch) {
		send_look(z, pm->from, 0, 0, out); /* so that it knows that its epoch is too low */
		return;
	}
	if (is_promised(z, now, pm->from) || (now->ns < lease && !CHP_MUTATED(S18_VOTE_DURING_LEASE)))
		return;
	follow(z, now, pm->from, m, out);
}

/* ------------------------------------------------------------------ the leader's history */

static void sync_follower(struct chp_zab *z, uint32_t node, struct chp_out *out);
static void establish(struct chp_zab *z, const struct chp_now *now);

/* [Z4] Our log is the history of our epoch: whoever follows gets it. */
static void
begin_sync(struct chp_zab *z, const struct chp_now *now, struct chp_out *out)
{
	z->pulling = NONE;
	z->phase = CHP_ZAB_SYNC;
	z->current_epoch = z->accepted_epoch;
	z->initial = last_index(z);
	z->deadline_ns = now->ns + 2 * z->env.election_ns;
	z->ackld = chp_bit(z->env.self);
	for (uint64_t p = z->ackepoch & ~chp_bit(z->env.self); p != 0; p &= p - 1)
		sync_follower(z, chp_first_bit(p), out);
	establish(z, now);
}

/* The history is chosen from a quorum: the newest of them all, not our own (pitfall P26). */
static void
choose_history(struct chp_zab *z, const struct chp_now *now, struct chp_out *out)
{
	const uint64_t from = counted(z, z->ackepoch);
	struct chp_zab_history best;
	uint32_t node = z->env.self;

	if (z->phase != CHP_ZAB_DISCOVERY || !z->is_leader || z->pulling != NONE || chp_count_bits(from) < z->quorum)
		return;
	own_history(z, &best);
	for (uint64_t p = from & ~chp_bit(z->env.self); p != 0; p &= p - 1) {
		const struct chp_zab_history *h = &z->peer[chp_first_bit(p)].history;

		if ((h->flags & CHP_ZAB_INCOMPLETE) != 0)
			continue;
		if ((best.flags & CHP_ZAB_INCOMPLETE) != 0 || chp_zab_history_older(&best, h)) {
			best = *h;
			node = chp_first_bit(p);
		}
	}
	if ((best.flags & CHP_ZAB_INCOMPLETE) != 0)
		return; /* another may still come */
	if (node == z->env.self) {
		begin_sync(z, now, out);
		return;
	}
	z->env.zab_counters->pulls++;
	z->pulling = node;
	z->pull_end = CHP_NEVER;
	z->deadline_ns = now->ns + 2 * z->env.election_ns;
	send_history(z, CHP_ZAB_PULL, node, 0, out);
}

static void
on_ackepoch(struct chp_zab *z, const struct chp_now *now, const struct chp_peer_message *pm, struct chp_out *out)
{
	const struct chp_zab_ackepoch *m = (const void *)pm->message;
	struct chp_zab_peer *p = &z->peer[pm->from];

	/* Of two that crossed, the later one's stream would cut off what was acknowledged of the earlier one's. */
	if (!is_my_follower(z, m->epoch) || m->serial != p->asked)
		return;
	p->view = m->view;
	p->history = m->history;
	z->ackepoch |= chp_bit(pm->from);
	if (z->pulling == pm->from)
		z->pulling = NONE; /* it began anew, and so does what we fetch from it */
	if (z->phase == CHP_ZAB_DISCOVERY)
		choose_history(z, now, out);
	else
		sync_follower(z, pm->from, out);
}

static void
send_sync(const struct chp_zab *z, enum chp_zab_type type, uint32_t to, uint64_t keep, uint64_t flags,
	  struct chp_out *out)
{
	struct chp_zab_sync *m = chp_send(out, to, sizeof(*m));

	*m = (struct chp_zab_sync){ .message = HEADER(type, *m),
				    .epoch = z->accepted_epoch,
				    .keep = keep,
				    .keep_epoch = (flags & CHP_ZAB_BEYOND) != 0 ? 0
									      : chp_zab_epoch_at(z->env.log, keep),
				    .end = chp_max_u64(keep, last_index(z)),
				    .sync_flags = flags };
}

/* [Z3] Our leader lacks what we have: it gets it from our log, as far back as that goes. */
static void
on_pull(struct chp_zab *z, const struct chp_peer_message *pm, struct chp_out *out)
{
	const struct chp_zab_ackepoch *m = (const void *)pm->message;
	uint64_t common;

	if (!is_my_leader(z, pm->from, m->epoch))
		return;
	if (z->incomplete || !chp_zab_common(z->env.log, &m->history, &common)) {
		send_sync(z, CHP_ZAB_HISTORY, pm->from, 0, CHP_ZAB_BEYOND, out);
		return;
	}
	send_sync(z, CHP_ZAB_HISTORY, pm->from, common, 0, out);
	z->pull_to = pm->from;
	z->pull_next = common + 1;
	z->pull_last = last_index(z);
}

static void
truncate_log(struct chp_zab *z, uint64_t keep)
{
	CHP_ASSERT_OP(keep, >=, z->committed);
	chp_log_truncate(z->env.log, keep + 1);
	chp_zab_quorum_truncate(&z->rule, keep + 1);
	z->ack_sent = chp_min_u64(z->ack_sent, keep);
}

static void
pull_done(struct chp_zab *z, const struct chp_now *now, struct chp_out *out)
{
	if (z->pulling != NONE && last_index(z) >= z->pull_end)
		begin_sync(z, now, out);
}

static void
on_history(struct chp_zab *z, const struct chp_now *now, const struct chp_peer_message *pm, struct chp_out *out)
{
	const struct chp_zab_sync *m = (const void *)pm->message;

	if (!is_my_follower(z, m->epoch) || pm->from != z->pulling)
		return;
	if ((m->sync_flags & CHP_ZAB_BEYOND) != 0 || m->keep < z->committed || m->keep > last_index(z)) {
		/* Its log does not reach back to ours: let it lead, it has everything. */
		look(z, now,
		     z->round + (pm->from + z->env.n_nodes - candidate(z, z->round)) % z->env.n_nodes, out);
		return;
	}
	truncate_log(z, m->keep);
	z->pull_end = m->end;
	z->deadline_ns = now->ns + 2 * z->env.election_ns;
	pull_done(z, now, out);
}

/* ------------------------------------------------------------------ synchronisation */

/*
 * [Z4] Make a follower's log a prefix of ours: DIFF from the last entry in common, TRUNC of what it has beyond
 * that, or SNAP, a copy of the state, where our log does not reach back. What is proposed from now on goes to
 * it as well, behind this, though it has not acknowledged anything yet (pitfall P17).
 */
static void
sync_follower(struct chp_zab *z, uint32_t node, struct chp_out *out)
{
	struct chp_zab_peer *p = &z->peer[node];
	uint64_t common, flags = 0;

	if (chp_zab_common(z->env.log, &p->history, &common)) {
		if (common < p->history.last)
			z->env.zab_counters->syncs_trunc++;
		else
			z->env.zab_counters->syncs_diff++;
	} else {
		common = z->applied;
		flags = CHP_ZAB_SNAP | (z->rule.rule == CHP_ZAB_ALL ? CHP_ZAB_RULE_ALL : 0);
		z->env.zab_counters->syncs_snap++;
		/* What it had acknowledged it is about to forget. */
		z->ackld &= ~chp_bit(node);
		p->acked = 0;
	}
	send_sync(z, CHP_ZAB_NEWLEADER, node, common, flags, out);
	p->sent = common + 1;
	p->commit_sent = p->stable_sent = 0;
	p->uptodate_due = false;
}

/* The state up to `keep` will be copied; the log goes on behind it. */
static void
begin_copy(struct chp_zab *z, const struct chp_now *now, const struct chp_zab_sync *m)
{
	chp_log_restart(z->env.log, m->keep + 1, m->keep_epoch);
	z->rule = (struct chp_zab_quorum){
		.rule = (m->sync_flags & CHP_ZAB_RULE_ALL) != 0 ? CHP_ZAB_ALL : CHP_ZAB_MAJORITY,
	};
	z->committed = z->applied = z->answered = m->keep;
	z->incomplete = z->clearing = true;
	z->clear_at = 0;
	chp_copy_stop(&z->copy);
	if (z->is_backed)
		chp_zab_slow_restart(z, now);
}

static void
on_newleader(struct chp_zab *z, const struct chp_now *now, const struct chp_peer_message *pm, struct chp_out *out)
{
	const struct chp_zab_sync *m = (const void *)pm->message;

	if (!is_my_leader(z, pm->from, m->epoch) && !CHP_MUTATED(P51_LATE_TRUNCATION))
		return;
	z->phase = CHP_ZAB_SYNC;
	z->synced = false;
	z->ack_sent = 0;
	z->pull_to = NONE; /* who synchronises others fetches no history any more, least of all what goes now */
	if ((m->sync_flags & CHP_ZAB_SNAP) != 0) {
		begin_copy(z, now, m);
	} else if (m->keep < z->committed || m->keep > last_index(z) || z->incomplete) {
		/* It says that committed entries go, or that we have what we have not. */
		z->env.zab_counters->holes_refused++;
		look(z, now, z->round + 1, out);
		return;
	} else if (!CHP_MUTATED(P28_NO_TRUNCATION)) {
		truncate_log(z, m->keep);
	}
	z->sync_begun = true;
	z->sync_end = m->end;
	if (CHP_MUTATED(P16_EPOCH_BEFORE_HISTORY))
		z->current_epoch = z->accepted_epoch;
}

/* Empty the cache, some slots at a time. What another key's digest leads over stays, as if deleted. */
static void
clear_some(struct chp_zab *z, const struct chp_now *now, struct chp_out *out)
{
	struct chp_cache *c = z->env.cache;
	const uint32_t end = chp_min_u32(chp_cache_slots(c), z->clear_at + CLEAR_MAX);

	for (; z->clear_at < end; z->clear_at++) {
		struct chp_slot *s = chp_cache_slot(c, z->clear_at);

		if (s == NULL)
			continue;
		if ((s->flags & CHP_SLOT_SESSION) != 0) {
			uint8_t key[CHP_KEY_BYTES_MAX];
			uint64_t id;

			chp_cache_key(c, s, key);
			memcpy(&id, key, sizeof(id));
			chp_session_close(z->env.sessions, id);
		}
		if (!chp_cache_remove(c, s)) {
			chp_cache_set(c, s, NULL, 0, (uint8_t)((s->flags & CHP_SLOT_SESSION) | CHP_SLOT_TOMBSTONE));
			s->version = 0;
			s->state = CHP_ZAB_REST;
		}
	}
	if (z->clear_at < chp_cache_slots(c)) {
		chp_out_wake_at(out, now->ns);
		return;
	}
	chp_sessions_drop_guesses(z->env.sessions);
	z->clearing = false;
	if (z->sync_begun)
		chp_copy_begin(&z->copy, z->leader);
}

/*
 * A key of the leader's state: it may be newer than entries that we have not applied yet. A deleted one is one that our
 * store may have to hear of.
 */
static bool
apply_item(void *instance, const struct chp_peer_message *m, struct chp_out *out)
{
	struct chp_zab *z = instance;
	const struct chp_copy_item *item = (const void *)m->message;
	const bool is_session = (item->item_flags & CHP_COPY_SESSION) != 0;
	const bool is_gone = (item->item_flags & CHP_COPY_TOMBSTONE) != 0;
	struct chp_slot *s = chp_cache_find(z->env.cache, &m->key);
	uint64_t id;

	(void)out;
	if ((is_gone && (!z->is_backed || is_session)) || (s != NULL && s->version >= item->version))
		return true;
	if (!chp_zab_make_any_room(z, s) || (is_session && z->env.sessions->n == z->env.sessions->capacity))
		return false;
	if (s == NULL)
		s = chp_cache_insert(z->env.cache, &m->key);
	chp_cache_set(z->env.cache, s, chp_copy_item_value(item), item->value_total,
		      item->item_flags & (CHP_COPY_SESSION | CHP_COPY_TOMBSTONE));
	s->version = item->version;
	if (is_session) {
		memcpy(&id, chp_copy_item_key(item), sizeof(id));
		chp_session_open(z->env.sessions, id);
	} else if (z->is_backed) {
		chp_zab_slot_copied(z, s);
	}
	return true;
}

/* What is in the cache is committed and applied, all of it; but of what is being asked for nothing is known. */
static enum chp_copy_verdict
look_for_copy(void *instance, const struct chp_slot *s, uint64_t seen)
{
	const struct chp_zab *z = instance;

	(void)seen;
	return z->is_backed && s->version == 0 ? CHP_COPY_SKIP : CHP_COPY_SEND;
}

/* A leader has everything, in its cache or its store. */
static bool
may_scan(void *instance)
{
	const struct chp_zab *z = instance;

	return !z->incomplete;
}

/* What of our log is durable in our store: nothing, as long as the state below it is not. */
static uint64_t
own_durable(const struct chp_zab *z)
{
	return z->incomplete || z->slow.n_unsaved > 0 ? 0 : z->env.log->mark - 1;
}

static void
send_index(const struct chp_zab *z, enum chp_zab_type type, uint32_t to, uint64_t index, uint64_t flags,
	   struct chp_out *out)
{
	struct chp_zab_index *m = chp_send(out, to, sizeof(*m));

	*m = (struct chp_zab_index){ .message = HEADER(type, *m),
				     .epoch = z->accepted_epoch,
				     .index = index,
				     .view = z->view.epoch,
				     .index_flags = flags,
				     .durable = type == CHP_ZAB_COMMIT ? z->stable : own_durable(z) };
}

/* [Z4] Once the log is whole, and not before (pitfall P16), this is the history of the epoch. */
static void
finish_sync(struct chp_zab *z, const struct chp_now *now, struct chp_out *out)
{
	if (z->incomplete && !z->clearing && chp_copy_is_done(&z->copy) &&
	    (z->slow.n_unsaved == 0 || !z->slow.is_short) && z->applied >= z->slow.copied_until) {
		z->incomplete = false;
		chp_sessions_drop_guesses(z->env.sessions);
		chp_copy_stop(&z->copy);
	}
	if (!z->sync_begun || z->synced || z->incomplete || last_index(z) < z->sync_end)
		return;
	if (z->recovering) {
		if (last_index(z) < z->recover_index)
			return;
		if (now->ns < z->recover_at_ns) {
			chp_out_wake_at(out, z->recover_at_ns);
			return;
		}
		z->recovering = false;
		z->recover_id = 0;
		z->env.zab_counters->recoveries++;
	}
	z->current_epoch = z->accepted_epoch;
	z->synced = true;
	z->ack_sent = last_index(z);
	z->durable_sent = own_durable(z);
	send_index(z, CHP_ZAB_ACKLD, z->leader, z->ack_sent, 0, out);
}

static void
on_ackld(struct chp_zab *z, const struct chp_now *now, const struct chp_peer_message *pm, struct chp_out *out)
{
	const struct chp_zab_index *m = (const void *)pm->message;
	struct chp_zab_peer *p = &z->peer[pm->from];

	if (!is_my_follower(z, m->epoch) || z->phase < CHP_ZAB_SYNC)
		return;
	if (CHP_MUTATED(P17_PROPOSE_TO_SYNCED_ONLY) && p->sent != 0)
		p->sent = z->env.log->next;
	if (p->sent == 0 || m->index >= p->sent || m->index < z->initial) {
		z->env.zab_counters->stale_epoch++; /* of a synchronisation that began anew meanwhile */
		return;
	}
	p->view = m->view;
	p->acked = chp_max_u64(p->acked, m->index);
	p->durable = chp_max_u64(p->durable, m->durable);
	z->ackld |= chp_bit(pm->from);
	z->acks_changed = true;
	p->uptodate_due = true;
	if (CHP_MUTATED(P18_COMMITLD_OLD)) {
		send_index(z, CHP_ZAB_COMMIT, pm->from, m->index, CHP_ZAB_UPTODATE, out);
		p->commit_sent = z->committed;
		p->uptodate_due = false;
	}
	establish(z, now);
}

/* [Z5] A quorum has our history: all of it is committed, and clients are served. */
static void
establish(struct chp_zab *z, const struct chp_now *now)
{
	if (z->phase != CHP_ZAB_SYNC || !z->is_leader || !is_quorum(z, z->ackld))
		return;
	z->phase = CHP_ZAB_BROADCAST;
	z->established_epoch = z->current_epoch;
	z->committed = chp_max_u64(z->committed, z->initial);
	chp_zab_quorum_commit(&z->rule, z->committed);
	z->env.zab_counters->leaderships++;
	z->beat_at_ns = now->ns; /* a lease as soon as there can be one */
	z->acks_changed = true;
}

/* ------------------------------------------------------------------ broadcast */

/* The entry behind our last one, from the leader's log or, in a leader's, from the one with the newest history. */
static bool
append_proposed(struct chp_zab *z, const struct chp_zab_propose *m)
{
	const struct chp_log_entry e = { .version = (m->entry_flags & CHP_ZAB_RESTORED) != 0 ? m->number : m->index,
					 .base = m->entry_epoch,
					 .session = m->session,
					 .request = m->request,
					 .number = m->number,
					 .slot = NONE,
					 .value_len = m->value_total,
					 .key_len = m->key_len,
					 .version_flags = m->entry_flags,
					 .status = m->status };
	uint64_t at;

	/* Credits keep this room. */
	if (chp_log_room_records(z->env.log) == 0) {
		z->env.counters->overrun++;
		return false;
	}
	if ((m->entry_flags & CHP_ZAB_RULE) != 0) {
		/* Whoever proposed this one had room for it: our oldest is committed, we have not heard of it yet. */
		if (!chp_zab_quorum_room(&z->rule))
			chp_zab_quorum_commit(&z->rule, z->rule.pending[0].index);
		CHP_ASSERT(chp_zab_quorum_add(&z->rule, m->index, (enum chp_zab_rule)m->number));
	}
	at = chp_log_append(z->env.log, &e, chp_zab_propose_key(m), chp_zab_propose_value(m), CHP_LOG_NONE, false);
	z->waiter[at & z->env.log->mask] = NONE;
	return true;
}

/* [Z6] Only the next entry is taken: a log has no holes (pitfall P19). */
static void
on_propose(struct chp_zab *z, const struct chp_now *now, const struct chp_peer_message *pm, struct chp_out *out)
{
	const struct chp_zab_propose *m = (const void *)pm->message;
	const bool pulled = z->is_leader && pm->from == z->pulling && m->epoch == z->accepted_epoch;

	if (!pulled && !is_my_leader(z, pm->from, m->epoch))
		return;
	z->deadline_ns = now->ns + (pulled ? 2 * z->env.election_ns : patience_ns(z));
	if (!pulled && z->phase < CHP_ZAB_SYNC && !CHP_MUTATED(P19_HOLES_ACCEPTED))
		return; /* of a synchronisation that begins anew */
	if (m->index <= last_index(z))
		return; /* it is in the log */
	if ((m->index != last_index(z) + 1 && !CHP_MUTATED(P19_HOLES_ACCEPTED)) ||
	    m->entry_epoch < chp_zab_epoch_at(z->env.log, last_index(z)) || !append_proposed(z, m)) {
		z->env.zab_counters->holes_refused++;
		look(z, now, z->round + 1, out);
		return;
	}
	if (pulled)
		pull_done(z, now, out);
}

/* [Z7] One acknowledgement for all that came in this run: of everything up to the last entry. */
static void
acknowledge(struct chp_zab *z, struct chp_out *out)
{
	const uint64_t durable = z->env.backing->is_durable ? own_durable(z) : 0;

	if (!z->synced || (z->ack_sent >= last_index(z) && z->durable_sent >= durable))
		return;
	z->ack_sent = last_index(z);
	z->durable_sent = chp_max_u64(z->durable_sent, durable);
	send_index(z, CHP_ZAB_ACK, z->leader, z->ack_sent, 0, out);
}

static void
on_ack(struct chp_zab *z, const struct chp_peer_message *pm)
{
	const struct chp_zab_index *m = (const void *)pm->message;
	struct chp_zab_peer *p = &z->peer[pm->from];

	if (!is_my_follower(z, m->epoch) || (z->ackld & chp_bit(pm->from)) == 0 || p->sent == 0 || m->index >= p->sent)
		return;
	z->env.zab_counters->acks++;
	p->acked = chp_max_u64(p->acked, m->index);
	p->durable = chp_max_u64(p->durable, m->durable);
	z->acks_changed = true;
}

/* The largest entry that this many members have in their logs, or in their stores, and everything before it. */
static uint64_t
held_by(const struct chp_zab *z, uint32_t members, bool in_stores)
{
	uint64_t held[CHP_NODES_MAX], least;
	uint32_t n = 1;

	held[0] = in_stores ? own_durable(z) : last_index(z);
	for (uint64_t p = others(z); p != 0; p &= p - 1) {
		const struct chp_zab_peer *peer = &z->peer[chp_first_bit(p)];

		held[n++] = in_stores ? peer->durable : peer->acked;
	}
	if (n < members)
		return 0;
	for (uint32_t i = 0;; i++) { /* the greatest first */
		for (uint32_t j = i + 1; j < n; j++) {
			if (held[j] > held[i]) {
				least = held[i];
				held[i] = held[j];
				held[j] = least;
			}
		}
		if (i + 1 == members)
			return held[i];
	}
}

/* [Z8, Z12] Committed is what a quorum has, and everything before it. */
static void
advance(struct chp_zab *z)
{
	uint64_t to;

	if (!z->is_leader || z->phase != CHP_ZAB_BROADCAST)
		return;
	/* [SAFETY 33] A majority of all configured members, under any rule: whoever begins cold again reads as many. */
	if (z->env.backing->is_durable)
		z->stable = CHP_MUTATED(ZAB_TOLD_UNSTORED) ? z->applied :
			    chp_max_u64(z->stable, chp_min_u64(held_by(z, z->quorum, true), z->applied));
	if (!z->acks_changed)
		return;
	z->acks_changed = false;
	to = chp_zab_quorum_committed(&z->rule, z->committed, last_index(z), held_by(z, z->quorum, false),
				      z->rule.rule == CHP_ZAB_ALL || z->rule.n > 0 ? held_by(z, z->env.n_nodes, false)
										   : 0);
	z->env.zab_counters->commits += to - z->committed;
	z->committed = to;
	chp_zab_quorum_commit(&z->rule, to);
}

static void
on_commit(struct chp_zab *z, const struct chp_now *now, const struct chp_peer_message *pm, struct chp_out *out)
{
	const struct chp_zab_index *m = (const void *)pm->message;

	if (!is_my_leader(z, pm->from, m->epoch) || z->phase < CHP_ZAB_SYNC)
		return;
	z->deadline_ns = now->ns + patience_ns(z);
	if (m->index > last_index(z)) { /* of what never came */
		z->env.zab_counters->holes_refused++;
		look(z, now, z->round + 1, out);
		return;
	}
	z->committed = chp_max_u64(z->committed, m->index);
	z->stable = chp_max_u64(z->stable, m->durable);
	chp_zab_quorum_commit(&z->rule, z->committed);
	if ((m->index_flags & CHP_ZAB_UPTODATE) != 0 && z->synced) {
		z->phase = CHP_ZAB_BROADCAST;
		z->established_epoch = z->current_epoch;
	}
}

static void
send_entry(const struct chp_zab *z, uint32_t to, uint64_t index, struct chp_out *out)
{
	const struct chp_log_entry *e = chp_log_at(z->env.log, index);
	const uint32_t bytes = chp_zab_propose_bytes(e->key_len, e->value_len);
	const uint32_t used = (uint32_t)sizeof(struct chp_zab_propose) + e->key_len + e->value_len;
	struct chp_zab_propose *m = chp_send(out, to, bytes);
	uint8_t *key = (uint8_t *)(m + 1);

	*m = (struct chp_zab_propose){ .message = header(CHP_ZAB_PROPOSE, bytes),
				       .epoch = z->accepted_epoch,
				       .entry_epoch = e->base,
				       .index = index,
				       .session = e->session,
				       .request = e->request,
				       .number = e->number,
				       .value_total = e->value_len,
				       .key_len = e->key_len,
				       .entry_flags = e->version_flags,
				       .status = e->status };
	m->message.flags = CHP_MESSAGE_BEGIN;
	chp_log_key(z->env.log, e, key);
	chp_log_value(z->env.log, e, key + e->key_len);
	memset((uint8_t *)m + used, 0, bytes - used);
	chp_out_begin(out, to);
}

/* The entries from `next` to `last`, as far as its credits go. Returns the next one. */
static uint64_t
send_entries(const struct chp_zab *z, const struct chp_now *now, uint32_t to, uint64_t next, uint64_t last,
	     struct chp_out *out)
{
	for (uint32_t i = 0; next <= last && out->lane[to].credits > 0; i++, next++) {
		if (i == PUMP_MAX) {
			chp_out_wake_at(out, now->ns);
			break;
		}
		send_entry(z, to, next, out);
	}
	return next;
}

/* What a follower lacks, then what is committed of it: applied here already, so that a copy agrees with it. */
static void
pump_to(struct chp_zab *z, const struct chp_now *now, uint32_t node, struct chp_out *out)
{
	struct chp_zab_peer *p = &z->peer[node];
	uint64_t committed;
	bool uptodate;

	if (p->sent < z->env.log->head) {
		p->history.flags |= CHP_ZAB_INCOMPLETE; /* the log has been compacted beyond what it lacks */
		sync_follower(z, node, out);
	}
	if (!CHP_MUTATED(P17_PROPOSE_TO_SYNCED_ONLY) || (z->ackld & chp_bit(node)) != 0 || z->phase == CHP_ZAB_SYNC)
		p->sent = send_entries(z, now, node, p->sent, last_index(z), out);
	/*
	 * What was applied here is committed whoever leads; a follower needs to hear it to make room for what is to
	 * come. To a late comer, too, what is committed now, not what was when it began (pitfall P18).
	 */
	committed = chp_min_u64(z->applied, p->sent - 1);
	/* That its synchronisation is over is true when the leader is established, not before. */
	uptodate = p->uptodate_due && z->phase == CHP_ZAB_BROADCAST;
	if (committed <= p->commit_sent && !uptodate && z->stable <= p->stable_sent)
		return;
	send_index(z, CHP_ZAB_COMMIT, node, committed, uptodate ? CHP_ZAB_UPTODATE : 0, out);
	p->commit_sent = committed;
	p->stable_sent = z->stable;
	p->uptodate_due = p->uptodate_due && !uptodate;
}

/* [Z6] Each follower at its own pace. */
static void
pump(struct chp_zab *z, const struct chp_now *now, struct chp_out *out)
{
	uint64_t fed = 0;

	if (z->pull_to != NONE && z->pull_next < z->env.log->head)
		z->pull_to = NONE; /* compacted meanwhile: it has to ask again, in another round */
	if (z->pull_to != NONE)
		z->pull_next = send_entries(z, now, z->pull_to, z->pull_next, z->pull_last, out);
	if (!z->is_leader || z->phase < CHP_ZAB_SYNC)
		return;
	for (uint64_t p = others(z); p != 0; p &= p - 1) {
		if (z->peer[chp_first_bit(p)].sent == 0)
			continue;
		pump_to(z, now, chp_first_bit(p), out);
		fed |= chp_bit(chp_first_bit(p));
	}
	chp_copy_serve_to(&z->copy, fed);
}

/* ------------------------------------------------------------------ applying */

/*
 * The leader's admission keeps this room. But a copy in progress may be ahead of the log, and have used it, and a
 * leader that keeps to no rules may not end the process.
 */
static bool
has_room(struct chp_zab *z, const struct chp_log_entry *e, const struct chp_slot *s)
{
	return chp_zab_make_any_room(z, s) &&
	       ((e->version_flags & CHP_ZAB_SESSION) == 0 || z->env.sessions->n < z->env.sessions->capacity);
}

/* A key goes. Where there is a store behind the cache it stays as deleted until that knows. */
static void
remove_key(struct chp_zab *z, const struct chp_log_entry *e, struct chp_slot *s)
{
	if (s == NULL || chp_cache_remove(z->env.cache, s))
		return;
	/* Another key's digest leads over it. */
	chp_cache_set(z->env.cache, s, NULL, 0, (uint8_t)((s->flags & CHP_SLOT_SESSION) | CHP_SLOT_TOMBSTONE));
	s->version = e->version;
}

/* The key gets the value of the entry at `index`, or goes. False: there is no room. */
static bool
apply_to_key(struct chp_zab *z, struct chp_log_entry *e, uint64_t index, const struct chp_key *key)
{
	struct chp_slot *s = chp_cache_find(z->env.cache, key);
	const bool is_stored = z->is_backed && (e->version_flags & CHP_ZAB_SESSION) == 0;
	uint64_t id = 0;

	if (s != NULL && s->version >= e->version)
		return true; /* the copy was ahead */
	if ((e->version_flags & CHP_ZAB_SESSION) != 0)
		memcpy(&id, key->bytes, sizeof(id));
	if ((e->version_flags & CHP_ZAB_REMOVE) != 0 && !is_stored) {
		if (id != 0)
			chp_session_close(z->env.sessions, id);
		remove_key(z, e, s);
		return true;
	}
	if (!has_room(z, e, s))
		return false;
	if (s == NULL)
		s = chp_cache_insert(z->env.cache, key);
	chp_log_value(z->env.log, e, z->value);
	chp_cache_set(z->env.cache, s, z->value, e->value_len,
		      e->version_flags & (CHP_ZAB_SESSION | CHP_ZAB_REMOVE));
	s->version = e->version;
	if (id != 0)
		chp_session_open(z->env.sessions, id);
	if (is_stored) {
		e->slot = chp_cache_slot_index(z->env.cache, s);
		s->log_low = (uint32_t)index;
		chp_zab_slot_applied(z, s, &key->digest);
	}
	return true;
}

/* How an entry ended: what failed says which version it saw; the rest is a version itself. */
static void
outcome_of(const struct chp_log_entry *e, uint64_t *version, uint64_t *number)
{
	const bool failed = (e->version_flags & CHP_ZAB_NOTHING) != 0;

	*version = failed ? e->number : e->version;
	*number = failed ? 0 : e->number;
}

static void
answer_proposal(struct chp_zab *z, const struct chp_now *now, uint32_t *waiter, struct chp_out *out)
{
	const struct chp_zab_op *op = &z->op[*waiter];

	z->env.counters->writes++;
	chp_histogram_record(z->env.commit_ns, now->ns - op->at);
	answer_op(z, *waiter, op->status, op->version, op->number, out);
	*waiter = NONE;
}

/* The client of an entry that was applied here, and its session everywhere. */
static void
settle(struct chp_zab *z, const struct chp_now *now, const struct chp_log_entry *e, uint64_t index,
       struct chp_out *out)
{
	uint32_t *waiter = &z->waiter[index & z->env.log->mask];
	uint64_t version, number;

	outcome_of(e, &version, &number);
	if (e->session != 0)
		chp_session_done(z->env.sessions, e->session, e->request, e->status, version, number);
	if (*waiter == NONE)
		return;
	z->op[*waiter].status = e->status;
	z->op[*waiter].version = version;
	z->op[*waiter].number = number;
	if (!z->env.backing->is_durable)
		answer_proposal(z, now, waiter, out);
}

/* [SAFETY 33] Level `datastore`: clients are answered when the stores of a majority have what they are told. */
static void
answer_stable(struct chp_zab *z, const struct chp_now *now, struct chp_out *out)
{
	const uint64_t end = chp_min_u64(z->applied, z->stable);

	while (z->answered < end && out->replies_left > 0) {
		uint32_t *waiter = &z->waiter[++z->answered & z->env.log->mask];

		if (*waiter != NONE)
			answer_proposal(z, now, waiter, out);
	}
}

/* Keys of a batch of entries, looked up together. */
struct apply_batch {
	struct chp_key key[CHP_BATCH_MAX];
	struct chp_key *want[CHP_BATCH_MAX];
	uint32_t n_want;
};

static void
fetch(struct chp_zab *z, struct apply_batch *b, uint32_t n)
{
	b->n_want = 0;
	for (uint32_t i = 0; i < n; i++) {
		const struct chp_log_entry *e = chp_log_at(z->env.log, z->applied + 1 + i);
		uint8_t *bytes = z->keys + (size_t)i * CHP_KEY_BYTES_MAX;
		struct chp_key *k = &b->key[i];

		if (e->key_len == 0)
			continue;
		chp_log_key(z->env.log, e, bytes);
		*k = (struct chp_key){ .bytes = bytes,
				       .len = e->key_len,
				       .session = (e->version_flags & CHP_ZAB_SESSION) != 0,
				       .pos = -1 };
		k->digest = chp_cache_digest(z->env.cache, bytes, k->len, k->session);
		if ((e->version_flags & CHP_ZAB_NOTHING) == 0)
			b->want[b->n_want++] = k;
	}
	if (b->n_want > 0) {
		chp_cache_find_bulk(z->env.cache, b->want, b->n_want);
		chp_cache_prefetch_records(z->env.cache, b->want, b->n_want);
	}
}

/* Apply n entries, at most as many as there are. Returns how many were. */
static uint32_t
apply_batch(struct chp_zab *z, const struct chp_now *now, struct apply_batch *b, uint32_t n, struct chp_out *out)
{
	fetch(z, b, n);
	for (uint32_t i = 0; i < n; i++) {
		struct chp_log_entry *e = chp_log_at(z->env.log, z->applied + 1);
		const bool writes = (e->version_flags & (CHP_ZAB_NOTHING | CHP_ZAB_RULE)) == 0;

		if (writes && !apply_to_key(z, e, z->applied + 1, &b->key[i]))
			return i;
		z->applied++;
		if (writes && z->is_leader)
			chp_zab_pending_applied(&z->pending, &b->key[i].digest, z->applied);
		settle(z, now, e, z->applied, out);
		chp_log_commit(z->env.log, z->applied);
	}
	if (!z->is_leader || !z->env.backing->is_durable)
		z->answered = z->applied;
	z->env.zab_counters->applied += n;
	return n;
}

/* [Z8] Committed entries, in order. True: there are more. */
static bool
apply(struct chp_zab *z, const struct chp_now *now, struct chp_out *out)
{
	struct apply_batch b;

	for (uint32_t done = 0; z->applied < z->committed && !z->clearing; ) {
		uint32_t n = (uint32_t)chp_min_u64(z->committed - z->applied, CHP_BATCH_MAX);

		/* Each may answer a client. */
		if (z->is_leader)
			n = chp_min_u32(n, out->replies_left);
		if (n == 0 || done >= APPLY_MAX)
			return true;
		if (apply_batch(z, now, &b, n, out) < n) {
			/* Until the store has taken what the cache holds; who is behind us waits with its credits. */
			if (z->is_backed && z->env.sessions->n < z->env.sessions->capacity)
				return false;
			z->env.counters->overrun++;
			z->incomplete = true;
			look(z, now, z->round + 1, out); /* copied anew, from what the leader has by then */
			return false;
		}
		done += n;
	}
	return false;
}

/* ------------------------------------------------------------------ the leader's lease, reads */

/* [Z10] When the last BEAT went that a quorum, ourselves included, has answered: we led then. */
static void
confirm(struct chp_zab *z)
{
	uint64_t echo[CHP_NODES_MAX] = { 0 };
	uint32_t n = 0;

	for (uint64_t p = z->ackepoch & others(z); p != 0; p &= p - 1)
		echo[n++] = z->peer[chp_first_bit(p)].echo_ns;
	for (uint32_t i = 0; i + 1 < z->quorum; i++) {
		uint32_t newest = i;

		for (uint32_t j = i + 1; j < n; j++)
			if (echo[j] > echo[newest])
				newest = j;
		const uint64_t swap = echo[i];

		echo[i] = echo[newest];
		echo[newest] = swap;
	}
	if (echo[z->quorum - 2] <= z->confirmed_ns)
		return;
	z->confirmed_ns = echo[z->quorum - 2];
	if (z->phase >= CHP_ZAB_SYNC) /* before that, only progress counts */
		z->deadline_ns = chp_max_u64(z->deadline_ns, z->confirmed_ns + 2 * z->env.election_ns);
}

static void
send_beat(const struct chp_zab *z, enum chp_zab_type type, uint32_t to, uint64_t sent_ns, struct chp_out *out)
{
	struct chp_zab_beat *m = chp_send(out, to, sizeof(*m));

	*m = (struct chp_zab_beat){ .message = HEADER(type, *m),
				    .epoch = z->accepted_epoch,
				    .sent_ns = sent_ns,
				    .lease_ns = z->env.leader_lease_ns,
				    .beat_flags = type == CHP_ZAB_BEAT_ACK && z->env.backing->is_ready
							  ? CHP_ZAB_HOST_READY
							  : 0 };
}

static void
beat(struct chp_zab *z, const struct chp_now *now, struct chp_out *out)
{
	z->beat_ns = now->ns;
	z->beat_at_ns = now->ns + z->env.election_ns / BEATS;
	for (uint64_t p = z->ackepoch & others(z); p != 0; p &= p - 1)
		send_beat(z, CHP_ZAB_BEAT, chp_first_bit(p), now->ns, out);
}

/* [Z10, SAFETY 18] Give the lease: vote for nobody else until it has run out on our clock. */
static void
on_beat(struct chp_zab *z, const struct chp_now *now, const struct chp_peer_message *pm, struct chp_out *out)
{
	const struct chp_zab_beat *m = (const void *)pm->message;

	if (!is_my_leader(z, pm->from, m->epoch))
		return;
	z->deadline_ns = now->ns + patience_ns(z);
	if (z->recovering)
		return; /* no grant, no part in any quorum (SAFETY 23) */
	if (m->lease_ns != 0 && m->lease_ns <= CHP_ZAB_LEASE_NS_MAX) {
		const uint64_t until = now->ns + m->lease_ns + drift_ns(z, m->lease_ns);

		if (z->promised_to != pm->from || until > z->promised_until_ns)
			z->promised_until_ns = until;
		z->promised_to = pm->from;
		z->lease_max_ns = chp_max_u64(z->lease_max_ns, m->lease_ns);
	}
	send_beat(z, CHP_ZAB_BEAT_ACK, pm->from, m->sent_ns, out);
}

static void
on_beat_ack(struct chp_zab *z, const struct chp_now *now, const struct chp_peer_message *pm)
{
	const struct chp_zab_beat *m = (const void *)pm->message;
	struct chp_zab_peer *p = &z->peer[pm->from];

	if (!is_my_follower(z, m->epoch) || (z->ackepoch & chp_bit(pm->from)) == 0 || m->sent_ns > now->ns ||
	    m->sent_ns <= p->echo_ns)
		return;
	p->echo_ns = m->sent_ns;
	p->has_host = (m->beat_flags & CHP_ZAB_HOST_READY) != 0;
	confirm(z);
}

/* A read that may be answered from the applied state now. */
struct read {
	const struct chp_op *op; /* as it came, or NULL: */
	uint32_t parked;         /* it has waited as this */
	struct chp_key key;      /* digest filled */
	bool is_sure;            /* see struct chp_zab_op */
};

static struct chp_reply
reply_to(const struct chp_op *op)
{
	return (struct chp_reply){ .origin = &op->origin,
				   .session = op->session,
				   .request = op->request,
				   .opcode = op->opcode,
				   .is_relaxed = op->is_relaxed };
}

static struct chp_reply
reply_to_read(const struct chp_zab *z, const struct read *rd)
{
	const struct chp_zab_op *op = rd->op == NULL ? &z->op[rd->parked] : NULL;

	if (op == NULL)
		return reply_to(rd->op);
	return (struct chp_reply){ .origin = &op->origin,
				   .session = op->session,
				   .request = op->request,
				   .opcode = op->opcode,
				   .is_relaxed = op->is_relaxed };
}

static void
refuse_read(struct chp_zab *z, const struct read *rd, uint8_t status, uint64_t number, struct chp_out *out)
{
	if (rd->op != NULL)
		refuse(rd->op, status, number, out);
	else
		answer_op(z, rd->parked, status, 0, number, out);
}

/* The operation that a read waits as; NONE: there is none left, and it was told so. */
static uint32_t
keep_read(struct chp_zab *z, const struct chp_now *now, const struct read *rd, struct chp_out *out)
{
	uint32_t i = rd->parked;

	if (rd->op != NULL) {
		i = take_op(z, rd->op);
		if (i == NONE) {
			z->env.counters->busy++;
			refuse(rd->op, CHP_STATUS_OVERLOAD, 0, out);
			return NONE;
		}
		z->op[i].at = now->ns;
		z->env.counters->reads_parked++;
	}
	z->op[i].is_sure = rd->is_sure;
	return i;
}

/*
 * The key is in the datastore, or nowhere. A follower whose own store is away, or that knows less of what was before a
 * cold start than the leader finds out, leaves it to the leader (SAFETY 32).
 */
static void
ask_for_read(struct chp_zab *z, const struct chp_now *now, const struct read *rd, struct chp_slot *s,
	     struct chp_out *out)
{
	struct chp_zab_miss *m;
	uint32_t i;

	z->env.counters->misses++;
	if (!z->is_leader && (!z->env.backing->is_ready || z->view.sources != 0)) {
		z->env.counters->host_away += !z->env.backing->is_ready;
		if (z->leader == CHP_NODES_MAX)
			refuse_read(z, rd, CHP_STATUS_NOT_SERVING, 0, out);
		else
			refuse_read(z, rd, CHP_STATUS_REDIRECT, z->leader, out);
		return;
	}
	m = chp_zab_ask(z, s, &rd->key);
	if (m == NULL) {
		z->env.counters->misses_refused++;
		refuse_read(z, rd, CHP_STATUS_OVERLOAD, 0, out);
		return;
	}
	i = keep_read(z, now, rd, out);
	if (i != NONE)
		chp_zab_push(z, &m->waiters, i);
}

/* The log position of what a slot holds; one that left the log long ago may look as if it were newer. */
static uint64_t
position_of(const struct chp_zab *z, const struct chp_slot *s)
{
	return z->env.log->next - (uint32_t)((uint32_t)z->env.log->next - s->log_low);
}

/* [SAFETY 33] What is read is not in enough stores yet: the answer waits until it is. */
static void
hold_read(struct chp_zab *z, const struct chp_now *now, const struct read *rd, const struct chp_slot *s,
	  struct chp_out *out)
{
	const uint32_t i = keep_read(z, now, rd, out);
	struct chp_zab_op *op;

	if (i == NONE)
		return;
	op = &z->op[i];
	op->at = position_of(z, s);
	op->status = (s->flags & CHP_SLOT_TOMBSTONE) != 0 ? CHP_STATUS_NOT_FOUND : CHP_STATUS_OK;
	op->version = op->status == CHP_STATUS_OK ? s->version : 0;
	op->value_len = op->status == CHP_STATUS_OK ? s->value_len : 0;
	if (op->value_len > 0)
		chp_cache_value(z->env.cache, s, chp_zab_value_of_op(z, i));
	push(z, CHP_ZAB_OP_STABLE, i);
}

static void
answer_held_reads(struct chp_zab *z, struct chp_out *out)
{
	uint32_t i;

	while ((i = z->list[CHP_ZAB_OP_STABLE].head) != NONE && z->op[i].at <= z->stable && out->replies_left > 0) {
		const struct chp_zab_op *op = &z->op[pop(z, CHP_ZAB_OP_STABLE)];
		struct chp_reply r = reply_to_read(z, &(struct read){ .parked = i });
		uint8_t *to;

		z->env.counters->reads++;
		r.status = op->status;
		r.version = op->version;
		r.value_len = op->value_len;
		to = out->reply(out, &r);
		if (r.value_len > 0)
			memcpy(to, chp_zab_value_of_op(z, i), r.value_len);
		release_op(z, i);
	}
}

/* What a read finds in the applied state. */
static void
read_key(struct chp_zab *z, const struct chp_now *now, const struct read *rd, struct chp_out *out)
{
	struct chp_slot *s = chp_cache_find(z->env.cache, &rd->key);
	struct chp_reply r = reply_to_read(z, rd);
	uint8_t *to;

	if (chp_zab_is_missing(z, s)) {
		ask_for_read(z, now, rd, s, out);
		return;
	}
	if (s != NULL)
		chp_cache_touch(s);
	if (z->env.backing->is_durable && !r.is_relaxed && position_of(z, s) > z->stable) {
		hold_read(z, now, rd, s, out);
		return;
	}
	z->env.counters->reads++;
	if (s == NULL || (s->flags & CHP_SLOT_TOMBSTONE) != 0) {
		r.status = CHP_STATUS_NOT_FOUND;
		out->reply(out, &r);
	} else {
		r.status = CHP_STATUS_OK;
		r.version = s->version;
		r.value_len = s->value_len;
		to = out->reply(out, &r);
		chp_cache_value(z->env.cache, s, to);
	}
	if (rd->op == NULL)
		release_op(z, rd->parked);
}

static struct read
parked_read(struct chp_zab *z, uint32_t i)
{
	struct read rd = { .parked = i,
			   .key = { .bytes = chp_zab_key_of_op(z, i), .len = z->op[i].key_len, .pos = -1 },
			   .is_sure = true };

	rd.key.digest = chp_cache_digest(z->env.cache, rd.key.bytes, rd.key.len, false);
	return rd;
}

static void
answer_parked_read(struct chp_zab *z, const struct chp_now *now, enum chp_zab_wait list, struct chp_out *out)
{
	const struct read rd = parked_read(z, pop(z, list));

	read_key(z, now, &rd, out);
}

static void
park_read(struct chp_zab *z, const struct chp_op *op, enum chp_zab_wait list, uint64_t at, struct chp_out *out)
{
	const uint32_t i = take_op(z, op);

	if (i == NONE) {
		z->env.counters->busy++;
		refuse(op, CHP_STATUS_OVERLOAD, 0, out);
		return;
	}
	z->env.counters->reads_parked++;
	z->op[i].at = at;
	push(z, list, i);
}

/* [Z9] A read: at the leader under its lease or confirmed by a quorum, at a follower after a sync. */
static void
read_here(struct chp_zab *z, const struct chp_now *now, const struct chp_op *op, struct chp_out *out)
{
	const uint64_t lease = lease_until_ns(z);
	struct read rd = { .op = op, .key = op->key };

	if (op->is_relaxed) {
		z->env.zab_counters->relaxed_reads++;
		rd.is_sure = true;
		read_key(z, now, &rd, out);
	} else if (!z->is_leader) {
		park_read(z, op, CHP_ZAB_OP_SYNC, z->read_id + 1, out);
	} else if (now->ns < lease || CHP_MUTATED(ZAB_READ_WITHOUT_LEASE)) {
		z->env.zab_counters->lease_reads++;
		if (!CHP_MUTATED(ZAB_READ_WITHOUT_LEASE))
			chp_out_reads_until(out, lease);
		read_key(z, now, &rd, out);
	} else {
		park_read(z, op, CHP_ZAB_OP_CONFIRM, now->ns, out);
	}
}

/* Its key is here: a read that came under the lease needs it still, or a quorum. */
static void
resume_read(struct chp_zab *z, const struct chp_now *now, uint32_t i, struct chp_out *out)
{
	const uint64_t lease = lease_until_ns(z);
	const struct read rd = parked_read(z, i);

	if (!z->op[i].is_sure && now->ns >= lease) {
		push(z, z->is_leader ? CHP_ZAB_OP_CONFIRM : CHP_ZAB_OP_REFUSE, i);
		return;
	}
	if (!z->op[i].is_sure)
		chp_out_reads_until(out, lease);
	read_key(z, now, &rd, out);
}

static void
send_read(const struct chp_zab *z, enum chp_zab_type type, uint32_t to, uint64_t id, uint64_t index,
	  struct chp_out *out)
{
	struct chp_zab_read *m = chp_send(out, to, sizeof(*m));

	*m = (struct chp_zab_read){ .message = HEADER(type, *m),
				    .epoch = z->accepted_epoch,
				    .id = id,
				    .index = index };
}

static void
on_read(struct chp_zab *z, const struct chp_now *now, const struct chp_peer_message *pm)
{
	const struct chp_zab_read *m = (const void *)pm->message;

	if (!is_my_follower(z, m->epoch))
		return;
	z->peer[pm->from].read_id = m->id;
	z->peer[pm->from].read_ns = now->ns;
}

static void
on_read_index(struct chp_zab *z, const struct chp_peer_message *pm)
{
	const struct chp_zab_read *m = (const void *)pm->message;

	if (!is_my_leader(z, pm->from, m->epoch) || !z->read_open || m->id != z->read_id)
		return;
	z->read_open = false;
	z->read_answered = m->id;
	z->read_index = m->index;
}

/* At the leader: what came before we were sure to lead, of clients and of followers. */
static void
serve_reads_as_leader(struct chp_zab *z, const struct chp_now *now, struct chp_out *out)
{
	const uint64_t lease = lease_until_ns(z);
	const bool leased = now->ns < lease;
	const uint64_t sure_ns = leased || z->env.n_nodes == 1 ? now->ns : z->confirmed_ns;
	bool ask = false;
	uint32_t i;

	while ((i = z->list[CHP_ZAB_OP_CONFIRM].head) != NONE && z->op[i].at <= sure_ns && out->replies_left > 0) {
		z->env.zab_counters->confirmed_reads++;
		if (leased && z->confirmed_ns < z->op[i].at)
			chp_out_reads_until(out, lease);
		answer_parked_read(z, now, CHP_ZAB_OP_CONFIRM, out);
	}
	if (i != NONE)
		ask = z->op[z->list[CHP_ZAB_OP_CONFIRM].tail].at > z->beat_ns;
	for (uint64_t p = others(z); p != 0; p &= p - 1) {
		struct chp_zab_peer *peer = &z->peer[chp_first_bit(p)];

		if (peer->read_id == 0)
			continue;
		if (peer->read_ns > sure_ns && !CHP_MUTATED(ZAB_READ_INDEX_EARLY)) {
			ask |= peer->read_ns > z->beat_ns;
			continue;
		}
		send_read(z, CHP_ZAB_READ_INDEX, chp_first_bit(p), peer->read_id, z->applied, out);
		peer->read_id = 0;
	}
	if (ask)
		beat(z, now, out);
}

/* [Z9] What waited to be sure. */
static void
serve_reads(struct chp_zab *z, const struct chp_now *now, struct chp_out *out)
{
	uint32_t i;

	answer_held_reads(z, out);
	if (z->is_leader) {
		if (chp_zab_serves(z))
			serve_reads_as_leader(z, now, out);
		return;
	}
	if (z->phase != CHP_ZAB_BROADCAST)
		return;
	while ((i = z->list[CHP_ZAB_OP_SYNC].head) != NONE && z->op[i].at <= z->read_answered &&
	       z->applied >= z->read_index && out->replies_left > 0) {
		z->env.zab_counters->sync_reads++;
		answer_parked_read(z, now, CHP_ZAB_OP_SYNC, out);
	}
	/* One question at a time, for all that came before it is asked. */
	if (i != NONE && !z->read_open && z->op[i].at > z->read_answered) {
		z->read_open = true;
		send_read(z, CHP_ZAB_READ, z->leader, ++z->read_id, 0, out);
	}
}

/* ------------------------------------------------------------------ recovery (SAFETY 23) */

/*
 * [Z11] This incarnation knows nothing of what an earlier one of its node promised. It has no vote and no part in
 * any quorum until a majority of the others, who have forgotten that one, have told what they accepted, the
 * leader of the greatest epoch among them, and that leader has brought it up to date.
 */
static void
recover(struct chp_zab *z, const struct chp_now *now, struct chp_out *out)
{
	z->phase = CHP_ZAB_RECOVERING;
	z->recover_id++;
	z->recover_from = NONE;
	z->answers = 0;
	z->deadline_ns = now->ns + patience_ns(z);
	for (uint64_t p = others(z); p != 0; p &= p - 1) {
		struct chp_zab_recover *m = chp_send(out, chp_first_bit(p), sizeof(*m));

		*m = (struct chp_zab_recover){ .message = HEADER(CHP_ZAB_RECOVER, *m), .id = z->recover_id };
	}
}

/* What its earlier incarnations said was forgotten when the view brought this one. */
static void
on_recover(struct chp_zab *z, const struct chp_peer_message *pm, struct chp_out *out)
{
	const struct chp_zab_recover *from = (const void *)pm->message;
	struct chp_zab_recovered *m;

	if (z->recovering)
		return;
	m = chp_send(out, pm->from, sizeof(*m));
	*m = (struct chp_zab_recovered){
		.message = HEADER(CHP_ZAB_RECOVERED, *m),
		.id = from->id,
		.accepted_epoch = z->accepted_epoch,
		.last = last_index(z),
		.lease_ns = z->lease_max_ns,
		.recovered_flags = z->is_leader && z->phase == CHP_ZAB_BROADCAST ? CHP_ZAB_ESTABLISHED : 0,
	};
}

static void
on_recovered(struct chp_zab *z, const struct chp_peer_message *pm, struct chp_out *out)
{
	const struct chp_zab_recovered *m = (const void *)pm->message;
	struct chp_zab_peer *p = &z->peer[pm->from];
	uint64_t greatest = 0;

	if (!z->recovering || m->id != z->recover_id || z->phase != CHP_ZAB_RECOVERING || z->recover_from != NONE)
		return;
	p->accepted_epoch = m->accepted_epoch;
	p->last = m->last;
	p->established = (m->recovered_flags & CHP_ZAB_ESTABLISHED) != 0;
	z->answers |= chp_bit(pm->from);
	if (m->lease_ns <= CHP_ZAB_LEASE_NS_MAX)
		z->lease_max_ns = chp_max_u64(z->lease_max_ns, m->lease_ns);
	z->recover_at_ns = z->born_ns + z->lease_max_ns + drift_ns(z, z->lease_max_ns);
	if (chp_count_bits(z->answers) < z->quorum)
		return;
	for (uint64_t a = z->answers; a != 0; a &= a - 1)
		greatest = chp_max_u64(greatest, z->peer[chp_first_bit(a)].accepted_epoch);
	for (uint64_t a = z->answers; a != 0; a &= a - 1) {
		p = &z->peer[chp_first_bit(a)];
		if (!p->established || p->accepted_epoch != greatest)
			continue;
		z->recover_from = chp_first_bit(a);
		z->recover_index = p->last;
		z->accepted_epoch = greatest;
		send_look(z, z->recover_from, 0, CHP_ZAB_JOIN, out);
		return;
	}
}

/* ------------------------------------------------------------------ client operations */

/* See zab_epoch(). */
#define TOLD_GENERATION_SHIFT 21u

/*
 * Of the last term that a quorum stood behind: one that came to nothing must not make clients doubt the others. Clients
 * have 32 bits of it, which go on rising after a cold start: room for two million terms, and 2,047 of those.
 */
static uint64_t
zab_epoch(const void *instance)
{
	const struct chp_zab *z = instance;

	if (z->established_epoch == 0)
		return 0;
	return (z->generation << TOLD_GENERATION_SHIFT) + (z->established_epoch >> EPOCH_SHIFT);
}

/* [SAFETY 33] A retry of what was applied, and is not in enough stores yet: its record says too much. */
static bool
is_untold(const struct chp_zab *z, const struct chp_op *op)
{
	const struct chp_session *s;
	const struct chp_record *r;

	if (!z->env.backing->is_durable || op->session == 0)
		return false;
	s = chp_session_find(z->env.sessions, op->session);
	if (s == NULL)
		return false;
	r = chp_session_record(z->env.sessions, s, op->request);
	return r->state == CHP_RECORD_DONE && r->request == op->request && r->version > z->stable;
}

static enum chp_status
zab_admit(void *instance, const struct chp_now *now, const struct chp_op *op, uint64_t *number)
{
	const struct chp_zab *z = instance;
	const bool serves = z->is_leader ? chp_zab_serves(z) : z->phase == CHP_ZAB_BROADCAST;

	(void)now;
	if (z->view.epoch == 0 || z->recovering)
		return CHP_STATUS_NOT_SERVING;
	if (op->opcode == CHP_OPCODE_PING)
		return CHP_STATUS_OK;
	if (op->opcode == CHP_OPCODE_GET) {
		if (op->is_relaxed)
			return z->incomplete ? CHP_STATUS_NOT_SERVING : CHP_STATUS_OK;
		return serves ? CHP_STATUS_OK : CHP_STATUS_NOT_SERVING;
	}
	if (z->is_backed && is_untold(z, op))
		return CHP_STATUS_OVERLOAD;
	/* Whoever heard of a later epoch has sessions that we may not know of; epochs compare as serial numbers. */
	if (op->session != 0 && op->epoch != 0 && (int32_t)(op->epoch - (uint32_t)zab_epoch(z)) > 0)
		return CHP_STATUS_NOT_SERVING;
	if (z->is_leader) {
		if (serves || (CHP_MUTATED(P34_SERVES_EARLY) && z->phase == CHP_ZAB_SYNC))
			return CHP_STATUS_OK;
		return CHP_STATUS_OVERLOAD; /* in a round trip or two */
	}
	if (z->leader == CHP_NODES_MAX)
		return CHP_STATUS_NOT_SERVING;
	*number = z->leader;
	return CHP_STATUS_REDIRECT;
}

enum known {
	KNOWN,
	MISSING, /* in the datastore, or nowhere */
	CLASHES, /* its digest is also another key's, which has a proposal open */
};

/* The newest proposed state of a key. What does not depend on it need not know it. */
static enum known
current_of(struct chp_zab *z, const struct chp_op *op, struct chp_slot **slot, struct chp_current *now)
{
	const uint64_t index = CHP_MUTATED(S26_COMPARE_UNCOMMITTED)
				       ? 0
				       : chp_zab_pending_find(&z->pending, &op->key.digest);
	struct chp_slot *s;

	*now = (struct chp_current){ .value = z->value };
	*slot = s = chp_cache_find(z->env.cache, &op->key);
	if (index != 0) {
		const struct chp_log_entry *e = chp_log_at(z->env.log, index);
		uint8_t key[CHP_KEY_BYTES_MAX];

		chp_log_key(z->env.log, e, key);
		if (e->key_len != op->key.len || memcmp(key, op->key.bytes, e->key_len) != 0)
			return CLASHES;
		now->version = e->version;
		now->present = (e->version_flags & CHP_ZAB_REMOVE) == 0;
		now->value_len = e->value_len;
		if (now->present)
			chp_log_value(z->env.log, e, z->value);
		return KNOWN;
	}
	if (chp_zab_is_missing(z, s) && op->key.len > 0 && !op->key.session)
		return chp_application_is_blind(z->env.application, op->opcode) ? KNOWN : MISSING;
	if (s == NULL || (s->flags & CHP_SLOT_TOMBSTONE) != 0)
		return KNOWN;
	chp_cache_touch(s);
	now->present = true;
	now->version = s->version;
	now->value_len = s->value_len;
	if (chp_application_needs_value(z->env.application, op->opcode))
		chp_cache_value(z->env.cache, s, z->value);
	return KNOWN;
}

/* What an operation does, as an entry (SAFETY 26). The value is the outcome's. */
static void
decide(struct chp_zab *z, const struct chp_op *op, const struct chp_slot *s, const struct chp_current *now,
       struct chp_log_entry *e, struct chp_outcome *w)
{
	const bool is_stored = z->is_backed && !op->key.session;
	const bool is_new = is_stored ? s == NULL : !now->present;

	*w = (struct chp_outcome){ .status = CHP_STATUS_OK };
	if (op->opcode == CHP_OPCODE_QUORUM) {
		w->number = op->arg;
		e->version_flags = CHP_ZAB_RULE;
	} else if (op->key.session) {
		e->version_flags = CHP_ZAB_SESSION;
		w->remove = op->opcode == CHP_OPCODE_SESSION_CLOSE;
		if (op->opcode == CHP_OPCODE_SESSION_OPEN)
			memcpy(&w->number, op->key.bytes, sizeof(w->number));
		else if (!now->present)
			w->status = CHP_STATUS_SESSION_UNKNOWN;
	} else {
		z->env.application->evaluate(op->opcode, op->arg, op->value, op->value_len, now,
					     z->env.value_bytes_max, z->scratch, w);
	}
	if (w->status == CHP_STATUS_OK && op->key.len > 0 && (!w->remove || is_stored) &&
	    !chp_zab_make_room(z, op->key.len, w->remove ? 0 : w->value_len, is_new)) {
		z->env.counters->full++;
		w->status = CHP_STATUS_FULL;
	}
	if (w->remove)
		e->version_flags |= CHP_ZAB_REMOVE;
	if (w->status != CHP_STATUS_OK) {
		e->version_flags = (uint8_t)(CHP_ZAB_NOTHING | (e->version_flags & CHP_ZAB_SESSION));
		w->number = now->version;
	}
	e->status = w->status;
	e->number = w->number;
	e->value_len = (e->version_flags & (CHP_ZAB_NOTHING | CHP_ZAB_REMOVE | CHP_ZAB_RULE)) != 0 ? 0 : w->value_len;
	e->key_len = (uint8_t)op->key.len;
}

/* Whether there is room for one more entry: certainly not applied otherwise, and never will be. */
static bool
may_propose(struct chp_zab *z, const struct chp_op *op, const struct chp_out *out)
{
	/* What zab_pending and the cache's headroom hold; with level `datastore` who is not answered yet, too. */
	const uint64_t open = last_index(z) - z->answered;

	if (CHP_MUTATED(S13_DEAD_FOLLOWER_STOPS) && chp_out_credits(out, others(z)) == 0)
		return false;
	return open + kept_of(op, z->env.credits) < z->env.credits && out->lane[z->env.self].credits > 0 &&
	       has_op(z, op) &&
	       (op->opcode != CHP_OPCODE_QUORUM ||
		z->rule.n + kept_of(op, CHP_ZAB_SWITCHES_MAX) < CHP_ZAB_SWITCHES_MAX);
}

/* Not BUSY where there is a session, which is final: another leader may be asked the same, and its log decides. */
static void
refuse_proposal(struct chp_zab *z, const struct chp_op *op, struct chp_out *out)
{
	z->env.counters->busy++;
	z->env.zab_counters->busy++;
	refuse(op, op->session == 0 ? CHP_STATUS_BUSY : CHP_STATUS_OVERLOAD, 0, out);
}

/* A read-modify-write waits for its key (SAFETY 2). */
static void
ask_for_write(struct chp_zab *z, const struct chp_now *now, const struct chp_op *op, struct chp_slot *s,
	      struct chp_out *out)
{
	struct chp_zab_miss *m = chp_zab_ask(z, s, &op->key);
	uint32_t i;

	z->env.counters->misses++;
	if (m == NULL) {
		z->env.counters->misses_refused++;
		refuse_proposal(z, op, out);
		return;
	}
	z->env.counters->writes_parked++;
	i = take_op(z, op); /* may_propose has seen that there is one */
	z->op[i].at = now->ns;
	z->op[i].value_len = op->value_len;
	if (op->value_len > 0)
		memcpy(chp_zab_value_of_op(z, i), op->value, op->value_len);
	chp_zab_push(z, &m->waiters, i);
}

/* An entry for the log, whose room was checked. */
static uint64_t
append(struct chp_zab *z, const struct chp_log_entry *e, const struct chp_key *key, const uint8_t *value,
       struct chp_out *out)
{
	const uint64_t at = chp_log_append(z->env.log, e, key->bytes, value, CHP_LOG_NONE, false);

	z->waiter[at & z->env.log->mask] = NONE;
	chp_out_begin(out, z->env.self);
	if ((e->version_flags & CHP_ZAB_RULE) != 0)
		CHP_ASSERT(chp_zab_quorum_add(&z->rule, at, (enum chp_zab_rule)e->number));
	else if ((e->version_flags & CHP_ZAB_NOTHING) == 0)
		chp_zab_pending_set(&z->pending, &key->digest, at);
	z->acks_changed = true; /* a cluster of one */
	z->env.zab_counters->proposals++;
	return at;
}

/*
 * [Z6] An operation becomes an entry of the log, one that fails too: so its session's record is the same
 * everywhere, and whoever leads next answers a retry from it.
 */
static void
propose(struct chp_zab *z, const struct chp_now *now, const struct chp_op *op, struct chp_out *out)
{
	struct chp_log_entry e = { .version = z->env.log->next,
				   .base = z->current_epoch,
				   .session = op->session,
				   .request = op->request,
				   .slot = NONE };
	enum known known = CLASHES;
	struct chp_slot *s = NULL;
	struct chp_current key;
	struct chp_outcome w;
	uint32_t i;

	if (may_propose(z, op, out))
		known = current_of(z, op, &s, &key);
	if (known == MISSING) {
		ask_for_write(z, now, op, s, out);
		return;
	}
	if (known == CLASHES) {
		refuse_proposal(z, op, out);
		return;
	}
	decide(z, op, s, &key, &e, &w);
	if (e.status == CHP_STATUS_UNKNOWN_OP) {
		refuse(op, CHP_STATUS_UNKNOWN_OP, 0, out); /* whoever is asked */
		return;
	}
	if (e.status == CHP_STATUS_FULL && z->is_backed && !op->key.session) {
		refuse_proposal(z, op, out); /* until the store has taken what the cache holds */
		return;
	}
	i = take_op(z, op);
	z->op[i].at = now->ns;
	z->op[i].is_begun = true;
	z->waiter[append(z, &e, &op->key, w.value, out) & z->env.log->mask] = i;
	z->env.counters->begun++;
}

bool
chp_zab_restore(struct chp_zab *z, const struct chp_key *key, uint64_t version, const uint8_t *value,
		uint32_t value_len, bool is_deleted, struct chp_out *out)
{
	const struct chp_log_entry e = { .version = version,
					 .base = z->current_epoch,
					 .number = version,
					 .slot = NONE,
					 .value_len = value_len,
					 .key_len = (uint8_t)key->len,
					 .version_flags = (uint8_t)(CHP_ZAB_RESTORED |
								    (is_deleted ? CHP_ZAB_REMOVE : 0)) };

	/* Clients keep the last place, and the half. */
	if (2 * (last_index(z) - z->answered) >= z->env.credits || out->lane[z->env.self].credits == 0 ||
	    !chp_zab_make_room(z, key->len, value_len, false))
		return false;
	append(z, &e, key, value, out);
	z->env.counters->reconciled++;
	return true;
}

/* What a write that waited for its key asked for. */
static void
resume_write(struct chp_zab *z, const struct chp_now *now, uint32_t i, struct chp_out *out)
{
	const struct chp_zab_op from = z->op[i];
	uint8_t bytes[CHP_KEY_BYTES_MAX];
	struct chp_op op = { .key = { .bytes = bytes, .len = from.key_len, .pos = -1 },
			     .value = z->operand,
			     .value_len = from.value_len,
			     .opcode = from.opcode,
			     .arg = from.arg,
			     .session = from.session,
			     .request = from.request,
			     .origin = from.origin };

	memcpy(bytes, chp_zab_key_of_op(z, i), from.key_len);
	if (from.value_len > 0)
		memcpy(z->operand, chp_zab_value_of_op(z, i), from.value_len);
	op.key.digest = chp_cache_digest(z->env.cache, bytes, from.key_len, false);
	release_op(z, i);
	propose(z, now, &op, out);
}

void
chp_zab_resume(struct chp_zab *z, const struct chp_now *now, uint32_t i, bool is_failed, struct chp_out *out)
{
	const bool is_read = z->op[i].opcode == CHP_OPCODE_GET;

	if (is_failed) {
		z->env.counters->busy++;
		answer_op(z, i, is_read || z->op[i].session != 0 ? CHP_STATUS_OVERLOAD : CHP_STATUS_BUSY, 0, 0, out);
	} else if (is_read) {
		resume_read(z, now, i, out);
	} else if (chp_zab_serves(z)) {
		resume_write(z, now, i, out);
	} else {
		push(z, CHP_ZAB_OP_REFUSE, i);
	}
}

/* [Z12] The quorum rule: asked for, or switched by an entry. */
static void
switch_rule(struct chp_zab *z, const struct chp_now *now, const struct chp_op *op, struct chp_out *out)
{
	if (op->arg <= CHP_ZAB_ALL) {
		propose(z, now, op, out);
	} else {
		struct chp_reply r = reply_to(op);

		r.status = op->arg == 2 ? CHP_STATUS_OK : CHP_STATUS_BAD_REQUEST;
		r.number = z->rule.rule;
		out->reply(out, &r);
	}
}

static void
zab_submit(void *instance, const struct chp_now *now, const struct chp_op *op, uint32_t n, struct chp_out *out)
{
	struct chp_zab *z = instance;

	CHP_ASSERT_OP(n, <=, CHP_BATCH_MAX);
	for (uint32_t i = 0; i < n; i++) {
		if (op[i].opcode == CHP_OPCODE_GET)
			read_here(z, now, &op[i], out);
		else if (op[i].opcode == CHP_OPCODE_QUORUM)
			switch_rule(z, now, &op[i], out);
		else
			propose(z, now, &op[i], out);
	}
}

/* ------------------------------------------------------------------ messages, runs, time */

static void
take_message(struct chp_zab *z, const struct chp_now *now, const struct chp_peer_message *m, struct chp_out *out)
{
	switch (m->message->type) {
	case CHP_ZAB_LOOK:
		on_look(z, now, m, out);
		break;
	case CHP_ZAB_NEWEPOCH:
		on_newepoch(z, now, m, out);
		break;
	case CHP_ZAB_ACKEPOCH:
		on_ackepoch(z, now, m, out);
		break;
	case CHP_ZAB_PULL:
		on_pull(z, m, out);
		break;
	case CHP_ZAB_HISTORY:
		on_history(z, now, m, out);
		break;
	case CHP_ZAB_NEWLEADER:
		on_newleader(z, now, m, out);
		break;
	case CHP_ZAB_ACKLD:
		on_ackld(z, now, m, out);
		break;
	case CHP_ZAB_PROPOSE:
		on_propose(z, now, m, out);
		break;
	case CHP_ZAB_ACK:
		on_ack(z, m);
		break;
	case CHP_ZAB_COMMIT:
		on_commit(z, now, m, out);
		break;
	case CHP_ZAB_BEAT:
		on_beat(z, now, m, out);
		break;
	case CHP_ZAB_BEAT_ACK:
		on_beat_ack(z, now, m);
		break;
	case CHP_ZAB_READ:
		on_read(z, now, m);
		break;
	case CHP_ZAB_READ_INDEX:
		on_read_index(z, m);
		break;
	case CHP_ZAB_RECOVER:
		on_recover(z, m, out);
		break;
	case CHP_ZAB_FETCH:
		if (is_my_leader(z, m->from, ((const struct chp_zab_fetch *)(const void *)m->message)->epoch))
			chp_zab_on_fetch(z, m, out);
		break;
	case CHP_ZAB_OFFER:
		if (is_my_follower(z, ((const struct chp_zab_fetch *)(const void *)m->message)->epoch))
			chp_zab_on_offer(z, m, out);
		break;
	case CHP_ZAB_FETCHED:
		if (((const struct chp_zab_fetched *)(const void *)m->message)->epoch == z->accepted_epoch)
			chp_zab_on_fetched(z, m);
		else
			z->env.zab_counters->stale_epoch++;
		break;
	default:
		CHP_ASSERT_OP(m->message->type, ==, CHP_ZAB_RECOVERED);
		on_recovered(z, m, out);
		break;
	}
}

static void
zab_step(void *instance, const struct chp_now *now, const struct chp_peer_message *m, uint32_t n,
	 struct chp_out *out)
{
	struct chp_zab *z = instance;

	CHP_ASSERT_OP(n, <=, CHP_BATCH_MAX);
	for (uint32_t i = 0; i < n; i++) {
		z->peer[m[i].from].heard_ns = now->ns;
		if (chp_copy_is(m[i].message))
			chp_copy_receive(&z->copy, now, &m[i], out);
		else
			take_message(z, now, &m[i], out);
	}
}

/*
 * [SAFETY 32] A leader whose store is away cannot answer for what is not in its cache: a follower whose store answers
 * takes its place. Nor does it lead whose store has lost what it had reported durable: its state is copied anew.
 */
static void
watch_store(struct chp_zab *z, const struct chp_now *now, struct chp_out *out)
{
	uint64_t better = 0;

	if (z->env.backing->has_lost && !z->incomplete && !z->recovering) {
		z->incomplete = true;
		look(z, now, z->round + 1, out);
		return;
	}
	if (z->env.backing->is_ready || !chp_zab_serves(z)) {
		z->slow.away_ns = 0;
		return;
	}
	if (z->slow.away_ns == 0)
		z->slow.away_ns = now->ns;
	for (uint64_t p = z->ackld & others(z); p != 0; p &= p - 1)
		if (z->peer[chp_first_bit(p)].has_host)
			better |= p & -p;
	if (better == 0 || now->ns - z->slow.away_ns < z->env.election_ns)
		return;
	z->slow.away_ns = 0;
	z->env.zab_counters->hosts_away++;
	look(z, now,
	     z->round + (chp_first_bit(better) + z->env.n_nodes - candidate(z, z->round)) % z->env.n_nodes, out);
}

/* What time alone brings about. */
static void
watch_time(struct chp_zab *z, const struct chp_now *now, struct chp_out *out)
{
	if (z->view.epoch == 0 || z->env.n_nodes == 1)
		return;
	if (z->is_leader && now->ns >= z->beat_at_ns)
		beat(z, now, out);
	if (now->ns >= z->deadline_ns) {
		/* [Z1] The leader is silent, a quorum is not with us any more, or this round came to nothing. */
		look(z, now, z->round + 1, out);
	} else if (z->phase == CHP_ZAB_LOOKING && candidate(z, z->round) == z->env.self) {
		try_lead(z, now, out); /* a lease that we gave may have run out */
		if (z->phase == CHP_ZAB_LOOKING && now->ns < z->promised_until_ns)
			chp_out_wake_at(out, z->promised_until_ns);
	}
	chp_out_wake_at(out, z->deadline_ns);
	if (z->is_leader)
		chp_out_wake_at(out, z->beat_at_ns);
}

static bool
zab_wake(void *instance, const struct chp_now *now, struct chp_out *out)
{
	struct chp_zab *z = instance;
	bool more;

	watch_time(z, now, out);
	if (z->is_backed && z->view.epoch != 0)
		watch_store(z, now, out);
	refuse_waiting(z, out);
	/* What a session waits for is answered first: its count of open requests goes with it. */
	if (z->clearing && z->list[CHP_ZAB_OP_REFUSE].head == NONE)
		clear_some(z, now, out);
	advance(z);
	more = apply(z, now, out);
	if (z->is_leader && z->env.backing->is_durable)
		answer_stable(z, now, out);
	if (z->is_backed && !z->clearing)
		more |= chp_zab_slow_run(z, now, out);
	finish_sync(z, now, out);
	serve_reads(z, now, out);
	acknowledge(z, out);
	pump(z, now, out);
	chp_copy_serve(&z->copy, now, out); /* behind the COMMIT of all that it shows */
	chp_copy_ask(&z->copy, now, out);
	return more || (z->list[CHP_ZAB_OP_REFUSE].head != NONE);
}

/* Everything that time brings about is looked at in each run. */
static void
zab_tick(void *instance, const struct chp_now *now, struct chp_out *out)
{
	(void)instance;
	(void)now;
	(void)out;
}

/* ------------------------------------------------------------------ views and links */

/* Another incarnation of a node: what the one before said counts for nothing any more (SAFETY 23). */
static void
forget_peer(struct chp_zab *z, uint32_t node)
{
	if (CHP_MUTATED(S23_SUPERSEDED_VOTE))
		return;
	z->env.zab_counters->superseded++;
	z->peer[node] = (struct chp_zab_peer){ .linked = true };
	z->ackepoch &= ~chp_bit(node);
	z->ackld &= ~chp_bit(node);
	z->answers &= ~chp_bit(node);
}

static void
enter_first_view(struct chp_zab *z, const struct chp_now *now, struct chp_out *out)
{
	z->born_ns = now->ns;
	z->lease_max_ns = z->env.leader_lease_ns;
	z->recover_at_ns = now->ns + z->lease_max_ns + drift_ns(z, z->lease_max_ns);
	for (uint32_t n = 0; n < z->env.n_nodes; n++)
		z->peer[n].linked = true;
	/* A member of the first view has forgotten nothing: it is fresh. Whoever comes later is not. */
	z->recovering = (z->view.learners & chp_bit(z->env.self)) != 0 && !CHP_MUTATED(S23_AMNESIA_VOTES);
	/*
	 * [SAFETY 34] Who begins a generation begins with an empty log, above all that any store holds. Who comes later
	 * has nothing in common with that log and gets a copy.
	 */
	if (chp_epoch_is_first(z->view.epoch) && z->generation > 0) {
		const uint64_t before = z->generation << CHP_ZAB_GENERATION_SHIFT;

		chp_log_restart(z->env.log, before + 1, 0);
		z->committed = z->applied = z->answered = before;
		chp_backing_restart(z->env.backing, now->ns, false);
	}
	look(z, now, 1, out);
}

static void
zab_view(void *instance, const struct chp_now *now, const struct chp_view *v, struct chp_out *out)
{
	struct chp_zab *z = instance;
	const struct chp_view old = z->view;
	bool leader_gone = false;

	z->view = *v;
	z->generation = chp_generation(v->epoch);
	if (old.epoch == 0) {
		enter_first_view(z, now, out);
		return;
	}
	for (uint32_t n = 0; n < z->env.n_nodes; n++) {
		if (n == z->env.self || old.incarnation[n] == v->incarnation[n])
			continue;
		leader_gone |= n == z->leader || n == z->pulling || n == z->recover_from;
		forget_peer(z, n);
	}
	if (leader_gone) {
		look(z, now, z->round + 1, out);
		return;
	}
	/* Votes that were cast in this view may count now. */
	try_lead(z, now, out);
	if (z->is_leader)
		choose_history(z, now, out);
	establish(z, now);
}

static void
zab_link_down(void *instance, const struct chp_now *now, uint32_t node, struct chp_out *out)
{
	struct chp_zab *z = instance;
	struct chp_zab_peer *p = &z->peer[node];

	p->linked = false;
	p->read_id = 0;
	if (!CHP_MUTATED(P19_HOLES_ACCEPTED))
		p->sent = 0;
	p->uptodate_due = false;
	chp_copy_link_down(&z->copy, node);
	if (z->pull_to == node)
		z->pull_to = NONE;
	if (z->is_leader) {
		/* It stays a follower of this epoch, and begins anew when its link is up. */
		z->ackepoch &= ~chp_bit(node);
		if (z->pulling == node)
			look(z, now, z->round + 1, out);
		return;
	}
	if (z->leader != node)
		return;
	/* What was under way from the leader is lost; if it lives, it sends it again. */
	z->phase = CHP_ZAB_DISCOVERY;
	z->synced = z->sync_begun = z->read_open = false;
	chp_copy_stop(&z->copy);
}

static void
zab_link_up(void *instance, const struct chp_now *now, uint32_t node, struct chp_out *out)
{
	struct chp_zab *z = instance;

	(void)now;
	z->peer[node].linked = true;
	chp_copy_link_up(&z->copy, node);
	if (z->is_backed)
		chp_zab_slow_link_up(z, node);
	if (z->view.epoch == 0 || (chp_view_live(&z->view) & chp_bit(node)) == 0)
		return;
	if (z->phase == CHP_ZAB_RECOVERING) {
		struct chp_zab_recover *m = chp_send(out, node, sizeof(*m));

		*m = (struct chp_zab_recover){ .message = HEADER(CHP_ZAB_RECOVER, *m), .id = z->recover_id };
	} else if (z->phase == CHP_ZAB_LOOKING) {
		send_look(z, node, z->round, 0, out);
	} else if (z->leader == node) {
		send_look(z, node, 0, CHP_ZAB_JOIN, out);
	}
}

/* ------------------------------------------------------------------ sessions, what others see */

/* A writer number is one incarnation's, so it and a count are never used again. */
static uint64_t
zab_new_session(void *instance)
{
	struct chp_zab *z = instance;

	/* After a cold start writer numbers begin again, sessions' numbers do not (SAFETY 34). */
	z->sessions_opened = chp_max_u64(z->sessions_opened, z->generation << CHP_SESSION_GENERATION_SHIFT) + 1;
	CHP_ASSERT_OP(z->sessions_opened, <, UINT64_C(1) << CHP_SESSION_NODE_SHIFT);
	return (uint64_t)z->view.writer[z->env.self] << CHP_SESSION_WRITER_SHIFT | z->sessions_opened;
}

static bool
zab_is_home(const void *instance, uint64_t session)
{
	(void)session;
	return chp_zab_serves(instance);
}

static bool
zab_copy_done(const void *instance)
{
	const struct chp_zab *z = instance;

	return z->view.epoch != 0 && !z->recovering && (!z->is_backed || chp_zab_slow_is_done(z));
}

static void
zab_copy_progress(const void *instance, struct chp_copy_progress *out)
{
	const struct chp_zab *z = instance;

	chp_copy_progress(&z->copy, out);
	out->done = zab_copy_done(z);
}

static uint32_t
zab_open_ops(const void *instance)
{
	return ((const struct chp_zab *)instance)->n_open_ops;
}

static const char *
role_of(const struct chp_zab *z)
{
	switch (z->phase) {
	case CHP_ZAB_RECOVERING:
		return "recovering";
	case CHP_ZAB_LOOKING:
		return "looking";
	case CHP_ZAB_DISCOVERY:
	case CHP_ZAB_SYNC:
		if (z->recovering)
			return "recovering";
		return z->is_leader ? "leading" : "following";
	default:
		return z->is_leader ? "leader" : "follower";
	}
}

static void
recovering_text(const struct chp_zab *z, struct chp_text *t)
{
	if (z->phase == CHP_ZAB_RECOVERING && z->recover_from == NONE)
		chp_text_add(t, "lost its memory: %u of %u others answered, none of them leads",
			     chp_count_bits(z->answers), z->quorum);
	else if (z->incomplete)
		chp_text_add(t, "lost its memory: the state is being copied from node %u", z->leader);
	else
		chp_text_add(t, "lost its memory: log at %" PRIu64 " of %" PRIu64, last_index(z),
			     chp_max_u64(z->sync_end, z->recover_index));
}

static void
zab_status(const void *instance, struct chp_protocol_status *out)
{
	const struct chp_zab *z = instance;
	struct chp_text t;

	*out = (struct chp_protocol_status){ .role = role_of(z),
					     .leader = z->leader,
					     .epoch = z->current_epoch,
					     .proposed = last_index(z),
					     .committed = z->committed,
					     .applied = z->applied,
					     .quorum = z->rule.rule == CHP_ZAB_ALL ? "all" : "majority" };
	t = chp_text_of(out->waiting, sizeof(out->waiting));
	if (z->view.epoch == 0)
		chp_text_add(&t, "no view");
	else if (z->recovering)
		recovering_text(z, &t);
	else if (z->phase == CHP_ZAB_LOOKING)
		chp_text_add(&t, "no leader: %u of %u votes for node %u", chp_count_bits(counted(z, votes(z))),
			     z->quorum, candidate(z, z->round));
	else if (z->incomplete)
		chp_text_add(&t, "too far behind: the state is being copied from node %u", z->leader);
	else if (z->phase != CHP_ZAB_BROADCAST)
		chp_text_add(&t, "synchronising: log at %" PRIu64, last_index(z));
}

void
chp_zab_inspect(const void *instance, struct chp_zab_state *out)
{
	const struct chp_zab *z = instance;

	*out = (struct chp_zab_state){
		.phase = z->recovering ? CHP_ZAB_RECOVERING : z->phase,
		.is_leader = z->is_leader,
		.leader = z->leader,
		.round = z->round,
		.accepted_epoch = z->accepted_epoch,
		.current_epoch = z->current_epoch,
		.first = z->env.log->head,
		.last = last_index(z),
		.last_epoch = chp_zab_epoch_at(z->env.log, last_index(z)),
		.committed = z->committed,
		.applied = z->applied,
		.all_rule = z->rule.rule == CHP_ZAB_ALL,
		.copying = z->incomplete,
		.lease_until_ns = lease_until_ns(z),
	};
}

void
chp_zab_entry(const void *instance, uint64_t index, uint64_t *epoch, uint64_t *digest)
{
	const struct chp_zab *z = instance;
	const struct chp_log_entry *e = chp_log_at(z->env.log, index);
	uint8_t record[CHP_RECORD_BYTES_MAX];
	const uint64_t says[] = { e->base, e->session, e->request, e->number, e->version_flags, e->status, e->key_len };

	chp_log_key(z->env.log, e, record);
	chp_log_value(z->env.log, e, record + e->key_len);
	*epoch = e->base;
	*digest = chp_hash64(says, sizeof(says), 0) ^ chp_hash64(record, e->key_len + e->value_len, 1);
}

/* ------------------------------------------------------------------ life, checks */

static void
zab_destroy(void *instance)
{
	struct chp_zab *z = instance;
	const struct chp_memory *memory;

	if (z == NULL)
		return;
	memory = z->env.memory;
	chp_zab_pending_fini(&z->pending, memory);
	chp_zab_slow_fini(z);
	memory->free(z->op_value);
	memory->free(z->operand);
	memory->free(z->op);
	memory->free(z->op_key);
	memory->free(z->waiter);
	memory->free(z->value);
	memory->free(z->scratch);
	memory->free(z->keys);
	memory->free(z);
}

static bool
allocate(struct chp_zab *z)
{
	const struct chp_protocol_env *env = &z->env;
	const struct chp_memory *m = env->memory;

	z->op = m->zalloc(env->ops * sizeof(*z->op));
	z->op_key = m->zalloc((size_t)env->ops * CHP_KEY_BYTES_MAX);
	z->waiter = m->zalloc(((size_t)env->log->mask + 1) * sizeof(*z->waiter));
	z->value = m->zalloc(CHP_VALUE_BYTES_MAX);
	z->scratch = m->zalloc(CHP_VALUE_BYTES_MAX);
	z->keys = m->zalloc(CHP_BATCH_MAX * CHP_KEY_BYTES_MAX);
	if (z->is_backed) {
		z->op_value = m->zalloc((size_t)env->ops * env->value_bytes_max);
		z->operand = m->zalloc(env->value_bytes_max);
		if (z->op_value == NULL || z->operand == NULL || chp_zab_slow_init(z) != 0)
			return false;
	}
	return z->op != NULL && z->op_key != NULL && z->waiter != NULL && z->value != NULL && z->scratch != NULL &&
	       z->keys != NULL && chp_zab_pending_init(&z->pending, env->credits, m) == 0;
}

static void *
zab_create(const struct chp_protocol_env *env)
{
	struct chp_zab *z = env->memory->zalloc(sizeof(*z));

	if (z == NULL)
		return NULL;
	z->env = *env;
	z->is_backed = env->backing->is_present;
	z->quorum = env->n_nodes / 2 + 1;
	z->leader = CHP_NODES_MAX;
	z->pulling = z->pull_to = z->recover_from = NONE;
	z->deadline_ns = CHP_NEVER;
	if (!allocate(z)) {
		zab_destroy(z);
		return NULL;
	}
	for (uint32_t i = 0; i < CHP_ZAB_OP_LISTS; i++)
		z->list[i] = (struct chp_zab_list){ NONE, NONE };
	for (uint32_t i = 0; i < env->ops; i++)
		push(z, CHP_ZAB_OP_FREE, i);
	for (uint32_t i = 0; i <= env->log->mask; i++)
		z->waiter[i] = NONE;
	chp_copy_init(&z->copy, &(struct chp_copy_config){
					.cache = env->cache,
					.sessions = env->sessions,
					.counters = env->copy_counters,
					.protocol = z,
					.look = look_for_copy,
					.apply = apply_item,
					.backing = z->is_backed ? env->backing : NULL,
					.parts = z->slow.parts,
					.may_scan = may_scan,
					.by_log = true,
					.self = env->self,
					.n_nodes = env->n_nodes,
					.chunk_bytes = env->copy_bytes,
				});
	return z;
}

/* What an entry does to its key is looked up when it is applied. */
static bool
zab_key_of(const struct chp_message *m, struct chp_key *key)
{
	if (m->type == CHP_ZAB_FETCH || m->type == CHP_ZAB_OFFER) {
		const struct chp_zab_fetch *f = (const void *)m;

		*key = (struct chp_key){ .bytes = (const uint8_t *)(f + 1), .len = f->key_len };
		return true;
	}
	return chp_copy_is(m) && chp_copy_key_of(m, key);
}

static bool
zab_accepts(const struct chp_message *m, uint32_t value_bytes_max)
{
	return chp_copy_is(m) ? chp_copy_check(m, value_bytes_max) : chp_zab_check(m, value_bytes_max);
}

static void
zab_check(const void *instance)
{
	const struct chp_zab *z = instance;
	const struct chp_log *l = z->env.log;
	uint32_t ops = 0, free_ops = 0;

	CHP_ASSERT_OP(z->applied, <=, z->committed);
	CHP_ASSERT_OP(z->committed, <=, last_index(z));
	CHP_ASSERT_OP(z->applied + 1, >=, l->head);
	CHP_ASSERT_OP(z->current_epoch, <=, z->accepted_epoch);
	CHP_ASSERT_OP(chp_zab_epoch_at(l, last_index(z)), <=, z->accepted_epoch);
	CHP_ASSERT(!z->is_leader || (z->leader == z->env.self && !z->recovering && !z->incomplete) ||
		   z->phase == CHP_ZAB_DISCOVERY);
	CHP_ASSERT(!z->synced || (z->sync_begun && !z->incomplete && !z->recovering));
	for (uint64_t at = l->head; at < l->next; at++) {
		const struct chp_log_entry *e = chp_log_at(l, at);

		CHP_ASSERT(e->version == at || (e->version_flags & CHP_ZAB_RESTORED) != 0);
		CHP_ASSERT(at == l->head || e->base >= chp_log_at(l, at - 1)->base);
		CHP_ASSERT_OP((e->flags & CHP_LOG_COMMITTED) != 0, ==, at <= z->applied);
	}
	for (uint64_t at = z->answered + 1; at < l->next; at++) {
		CHP_ASSERT(z->waiter[at & l->mask] == NONE || z->is_leader);
		ops += z->waiter[at & l->mask] != NONE;
	}
	CHP_ASSERT_OP(z->answered, <=, z->applied);
	chp_zab_slow_check(z, &ops);
	for (uint32_t list = 0; list < CHP_ZAB_OP_LISTS; list++)
		for (uint32_t i = z->list[list].head; i != NONE; i = z->op[i].next)
			*(list == CHP_ZAB_OP_FREE ? &free_ops : &ops) += 1;
	CHP_ASSERT_OP(ops, ==, z->n_open_ops);
	CHP_ASSERT_OP(ops + free_ops, ==, z->env.ops);
	chp_copy_verify(&z->copy);
}

static void
zab_dump(const void *instance, const struct chp_key *key, struct chp_text *t)
{
	const struct chp_zab *z = instance;
	const struct chp_slot *s;

	if (key == NULL) {
		chp_text_add(t, "%s round %" PRIu64 " epoch %" PRIu64 "/%" PRIu64 " log %" PRIu64 "..%" PRIu64
			     " committed %" PRIu64 " applied %" PRIu64 " open_ops %u",
			     role_of(z), z->round, z->accepted_epoch, z->current_epoch, z->env.log->head, last_index(z),
			     z->committed, z->applied, z->n_open_ops);
		if (z->is_backed)
			chp_text_add(t, " answered %" PRIu64 " stable %" PRIu64 " unsaved %u fetches %u offers %u%s",
				     z->answered, z->stable, z->slow.n_unsaved, z->slow.n_fetches, z->slow.n_offers,
				     z->slow.old.is_done ? " reconciled" : "");
		return;
	}
	s = chp_cache_find(z->env.cache, key);
	if (s == NULL || (s->flags & CHP_SLOT_TOMBSTONE) != 0)
		chp_text_add(t, "absent");
	else
		chp_text_add(t, "v%" PRIu64, s->version);
}

const struct chp_protocol chp_zab = {
	.name = "zab",
	.is_fenced = false,
	.keeps_log = true,
	.is_backed = true,
	.create = zab_create,
	.destroy = zab_destroy,
	.accepts = zab_accepts,
	.key_of = zab_key_of,
	.step = zab_step,
	.admit = zab_admit,
	.submit = zab_submit,
	.wake = zab_wake,
	.tick = zab_tick,
	.view = zab_view,
	.link_down = zab_link_down,
	.link_up = zab_link_up,
	.loaded = chp_zab_loaded,
	.scanned = chp_zab_scanned,
	.scan_end = chp_zab_scan_end,
	.new_session = zab_new_session,
	.is_home = zab_is_home,
	.epoch = zab_epoch,
	.status = zab_status,
	.copy_done = zab_copy_done,
	.copy_progress = zab_copy_progress,
	.open_ops = zab_open_ops,
	.check = zab_check,
	.dump = zab_dump,
};

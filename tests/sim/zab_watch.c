/* SPDX-License-Identifier: BSD-3-Clause */
#include "zab_watch.h"

#include "base/digest.h"
#include "wire/zab.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------ entries by zxid */

static struct zab_entry *
place_of(const struct zab_watch *z, uint64_t epoch, uint64_t index)
{
	const uint64_t zxid[2] = { epoch, index };
	uint32_t i = (uint32_t)chp_hash64(zxid, sizeof(zxid), 0) & (z->cap_entries - 1);

	while (z->entry[i].epoch != 0 && (z->entry[i].epoch != epoch || z->entry[i].index != index))
		i = (i + 1) & (z->cap_entries - 1);
	return &z->entry[i];
}

/* NULL if nobody has proposed it. */
static struct zab_entry *
find(const struct zab_watch *z, uint64_t epoch, uint64_t index)
{
	struct zab_entry *e = z->cap_entries == 0 || epoch == 0 ? NULL : place_of(z, epoch, index);

	return e == NULL || e->epoch == 0 ? NULL : e;
}

static struct zab_entry *
add(struct zab_watch *z, uint64_t epoch, uint64_t index)
{
	struct zab_entry *e;

	if (2 * z->n_entries >= z->cap_entries) {
		struct zab_entry *old = z->entry;
		const uint32_t n = z->cap_entries;

		z->cap_entries = n == 0 ? 1024 : 2 * n;
		z->entry = calloc(z->cap_entries, sizeof(*z->entry));
		CHP_ASSERT(z->entry != NULL);
		for (uint32_t i = 0; i < n; i++)
			if (old[i].epoch != 0)
				*place_of(z, old[i].epoch, old[i].index) = old[i];
		free(old);
	}
	e = place_of(z, epoch, index);
	if (e->epoch == 0) {
		*e = (struct zab_entry){ .epoch = epoch, .index = index };
		z->n_entries++;
	}
	return e;
}

/* A place in an array by indices: they begin anew, and higher, after each cold start. */
static uint64_t
at(uint64_t index)
{
	return index & ((UINT64_C(1) << CHP_ZAB_GENERATION_SHIFT) - 1);
}

/* Room for a place in an array; what is new is 0. */
static void
reach(uint64_t **array, uint64_t *cap, uint64_t index)
{
	uint64_t n = chp_max_u64(*cap, 64);

	while (n <= index)
		n *= 2;
	if (n == *cap)
		return;
	*array = realloc(*array, n * sizeof(**array));
	CHP_ASSERT(*array != NULL);
	memset(*array + *cap, 0, (n - *cap) * sizeof(**array));
	*cap = n;
}

/* ------------------------------------------------------------------ logs */

/* Whether a node may be counted on for what its log holds. */
static bool
counts(const struct chp_zab_state *s)
{
	return s->phase != CHP_ZAB_RECOVERING && !s->copying;
}

/* Whether a node leads its epoch, or did at the beginning of its last run. */
static bool
leads_or_led(const struct zab_life *life)
{
	return life->state.is_leader ||
	       (life->before.is_leader && life->before.current_epoch == life->state.current_epoch);
}

/* One entry of a node's log, in the order of the log. */
static void
look_at(struct sim_world *w, uint32_t n, uint64_t index)
{
	struct zab_watch *z = zab_watch(w);
	struct zab_life *life = &z->life[n];
	const struct chp_zab_state *s = &life->state;
	const uint64_t before = index == s->first ? 0 : life->epoch[at(index - 1)];
	uint64_t epoch, digest;
	struct zab_entry *e;

	chp_zab_entry(chp_shard_instance(w->node[n].shard), index, &epoch, &digest);
	life->epoch[at(index)] = epoch;
	e = find(z, epoch, index);
	if (e == NULL) {
		/* Integrity: only the leader of an epoch makes entries of it. */
		if (!leads_or_led(life) || s->current_epoch != epoch)
			sim_fail(w,
				 "node %u has an entry %" PRIx64 ".%" PRIu64
				 " that nobody proposed",
				 n, epoch, index);
		e = add(z, epoch, index);
	}
	if (epoch < before)
		sim_fail(w,
			 "node %u has an entry of epoch %" PRIx64 " behind one of epoch %" PRIx64,
			 n, epoch, before);
	if (e->digest != 0 && e->digest != digest)
		sim_fail(w, "node %u has another entry %" PRIx64 ".%" PRIu64 " than somebody had",
			 n, epoch, index);
	if (before != 0 && e->before != 0 && e->before != before)
		sim_fail(w,
			 "node %u has entry %" PRIx64 ".%" PRIu64 " behind one of epoch %" PRIx64
			 ", others behind one of %" PRIx64,
			 n, epoch, index, before, e->before);
	e->digest = digest;
	if (before != 0)
		e->before = before;
}

/*
 * What came into a node's log, or was exchanged there. Logs that share an entry are equal before it; one that begins
 * earlier than it did is another's, all of it.
 */
static void
check_log(struct sim_world *w, uint32_t n)
{
	struct zab_life *life = &zab_watch(w)->life[n];
	const struct chp_zab_state *s = &life->state, *b = &life->before;
	const bool begins_to_count = counts(s) && !counts(b);
	uint64_t from = s->last + 1;

	if (s->first > s->last)
		return;
	reach(&life->epoch, &life->cap, at(s->last));
	while (from > s->first) {
		uint64_t epoch, digest;

		if (s->first >= b->first && from - 1 <= b->last && from - 1 >= b->first) {
			chp_zab_entry(chp_shard_instance(w->node[n].shard), from - 1, &epoch,
				      &digest);
			if (life->epoch[at(from - 1)] == epoch)
				break;
		}
		from--;
	}
	for (uint64_t i = from; i <= s->last; i++)
		look_at(w, n, i);
	if (!counts(s))
		return;
	for (uint64_t i = begins_to_count ? s->first : from; i <= s->last; i++) {
		struct zab_entry *e = find(zab_watch(w), life->epoch[at(i)], i);

		if (e != NULL)
			e->held |= chp_bit(n);
	}
}

/* ------------------------------------------------------------------ committing */

static uint32_t
majority(const struct sim_world *w)
{
	return w->config.n_nodes / 2 + 1;
}

static bool
is_switch(const struct zab_entry *e, enum chp_zab_rule rule)
{
	return e != NULL && e->told && (e->flags & CHP_ZAB_RULE) != 0 && e->number == rule;
}

/* The rule that an entry is under: the last switch up to it says so. */
static enum chp_zab_rule
rule_at(const struct zab_watch *z, const struct zab_life *life, uint64_t index)
{
	for (uint64_t i = index; at(i) > 0; i--) {
		const uint64_t epoch = i <= z->committed ? z->order[at(i)]
				       : at(i) < life->cap   ? life->epoch[at(i)]
							 : 0;
		const struct zab_entry *e = find(z, epoch, i);

		if (is_switch(e, CHP_ZAB_ALL))
			return CHP_ZAB_ALL;
		if (is_switch(e, CHP_ZAB_MAJORITY))
			return CHP_ZAB_MAJORITY;
	}
	return CHP_ZAB_MAJORITY;
}

/* [SAFETY 28] Whether those who hold an entry are enough for a leader to commit it. */
static void
check_quorum(struct sim_world *w, uint32_t n, const struct zab_entry *e)
{
	const struct zab_watch *z = zab_watch(w);
	const struct zab_life *life = &z->life[n];

	if (chp_count_bits(e->held) < majority(w)) {
		sim_fail(w,
			 "node %u commits entry %" PRIx64 ".%" PRIu64 ", which only %" PRIx64
			 " hold",
			 n, e->epoch, e->index, e->held);
		return;
	}
	/* What a leader inherited it may commit by majority. */
	if (e->epoch < life->state.current_epoch || chp_count_bits(e->held) == w->config.n_nodes ||
	    rule_at(z, life, e->index) == CHP_ZAB_MAJORITY)
		return;
	for (uint64_t i = e->index + 1; i <= life->state.last && at(i) < life->cap; i++) {
		const struct zab_entry *later = find(z, life->epoch[at(i)], i);

		if (is_switch(later, CHP_ZAB_MAJORITY) &&
		    chp_count_bits(later->held) >= majority(w))
			return;
	}
	sim_fail(w,
		 "node %u commits entry %" PRIx64 ".%" PRIu64
		 " under the rule all, and only %" PRIx64 " hold it",
		 n, e->epoch, e->index, e->held);
}

/* The first node that commits an index says what stands there. */
static void
commit_first(struct sim_world *w, uint32_t n, uint64_t index, uint64_t epoch)
{
	struct zab_watch *z = zab_watch(w);
	const struct zab_entry *e = find(z, epoch, index);

	if (e == NULL) {
		sim_fail(w, "node %u commits %" PRIx64 ".%" PRIu64 ", which nobody proposed", n,
			 epoch, index);
		return;
	}
	if (!leads_or_led(&z->life[n]))
		sim_fail(w, "node %u commits %" PRIx64 ".%" PRIu64 " before its leader", n, epoch,
			 index);
	if (at(z->committed) != 0 && epoch < z->order[at(z->committed)])
		sim_fail(w,
			 "node %u commits an entry of epoch %" PRIx64
			 " after one of epoch %" PRIx64,
			 n, epoch, z->order[at(z->committed)]);
	check_quorum(w, n, e);
	reach(&z->order, &z->cap_order, at(index));
	z->order[at(index)] = epoch;
	z->committed = index;
	if (e->told)
		sim_once_executed(w, n, epoch, e->session, e->request, index);
}

static void
check_committed(struct sim_world *w, uint32_t n)
{
	struct zab_watch *z = zab_watch(w);
	const struct zab_life *life = &z->life[n];
	const struct chp_zab_state *s = &life->state;
	uint64_t from = life->before.committed + 1;

	/* Only a copy of another's state may begin before what was committed here: then nothing here counts. */
	if (s->committed < life->before.committed && !s->copying)
		sim_fail(w, "node %u takes a commit back: %" PRIu64 ", then %" PRIu64, n,
			 life->before.committed, s->committed);
	/* A copy begins where somebody had committed everything. */
	if (s->committed >= from && s->first > from) {
		if (s->first - 1 > z->committed && s->first <= s->last + 1)
			sim_fail(w,
				 "node %u begins behind entry %" PRIu64 ", and only %" PRIu64
				 " are committed",
				 n, s->first - 1, z->committed);
		from = s->first;
	}
	for (uint64_t i = from; i <= s->committed && i <= s->last; i++) {
		const uint64_t epoch = life->epoch[at(i)];

		if (i == z->committed + 1)
			commit_first(w, n, i, epoch);
		else if (i > z->committed)
			sim_fail(w, "node %u commits entry %" PRIu64 " and nobody the one before",
				 n, i);
		else if (z->order[at(i)] != epoch)
			sim_fail(w,
				 "node %u commits %" PRIx64 ".%" PRIu64 "; committed is %" PRIx64
				 ".%" PRIu64,
				 n, epoch, i, z->order[at(i)], i);
	}
}

/* ------------------------------------------------------------------ leaders */

/* [SAFETY 18] Nobody has a lease beside a newer leader. */
static void
check_leases(struct sim_world *w)
{
	const struct zab_watch *z = zab_watch(w);

	for (uint32_t n = 0; n < w->config.n_nodes; n++) {
		const struct chp_zab_state *s = &z->life[n].state;

		if (w->node[n].alive && s->is_leader && s->phase == CHP_ZAB_BROADCAST &&
		    s->current_epoch < z->established && sim_node_clock(w, n) < s->lease_until_ns)
			sim_fail(w,
				 "node %u leads epoch %" PRIx64 " with a lease for %" PRIu64
				 " us more, and node %u epoch %" PRIx64,
				 n, s->current_epoch,
				 (s->lease_until_ns - sim_node_clock(w, n)) / 1000, z->leader,
				 z->established);
	}
}

/* An epoch has one leader; the last vote that makes one may arrive when there is a later one already. */
static void
check_one_leader(struct sim_world *w, uint32_t n, uint64_t epoch)
{
	struct zab_watch *z = zab_watch(w);
	uint64_t *of;

	for (uint64_t i = 0; i < z->n_leaders; i++) {
		of = &z->leaders[2 * i];
		if (of[0] == epoch && of[1] != w->node[n].membership.incarnation)
			sim_fail(w, "node %u leads epoch %" PRIx64 ", as somebody else did", n,
				 epoch);
	}
	reach(&z->leaders, &z->cap_leaders, 2 * z->n_leaders + 1);
	of = &z->leaders[2 * z->n_leaders++];
	of[0] = epoch;
	of[1] = w->node[n].membership.incarnation;
	if (epoch < z->established)
		return;
	z->established = epoch;
	z->leader = n;
}

/*
 * [SAFETY 23] Those who make it the leader have its history: none of them is an incarnation that its view knows to be
 * superseded, or one that lost its memory since.
 */
static void
check_followers(struct sim_world *w, uint32_t n, uint64_t epoch)
{
	const struct zab_life *life = zab_watch(w)->life;
	uint32_t with = 0;

	for (uint32_t p = 0; p < w->config.n_nodes; p++) {
		/* Of an incarnation that is gone, and not superseded there, it is not known. */
		const bool is_current = w->node[n].shard_view.incarnation[p] ==
					w->node[p].membership.incarnation;

		with += p == n || !is_current || life[p].state.current_epoch >= epoch;
	}
	if (with < w->config.n_nodes / 2 + 1)
		sim_fail(w, "node %u leads epoch %" PRIx64 " and only %u members have its history",
			 n, epoch, with);
}

/* A leader has its quorum: nobody else had one in this epoch, and it knows all that was committed. */
static void
established(struct sim_world *w, uint32_t n)
{
	struct zab_watch *z = zab_watch(w);
	struct zab_life *life = &z->life[n];
	const struct chp_zab_state *s = &life->state;

	sim_trace(w,
		  "node %u is the established leader of epoch %" PRIx64 ", entries %" PRIu64
		  " to %" PRIu64 ", committed %" PRIu64,
		  n, s->current_epoch, s->first, s->last, s->committed);
	life->led = s->current_epoch;
	check_one_leader(w, n, s->current_epoch);
	check_followers(w, n, s->current_epoch);
	if (s->copying)
		sim_fail(w, "node %u leads with a state that is being copied", n);
	for (uint64_t i = s->first; i <= z->committed; i++) {
		/* Of its followers some may have gone on to a later epoch, which commits entries of its own. */
		if (z->order[at(i)] > s->current_epoch)
			break;
		if (i > s->last || life->epoch[at(i)] != z->order[at(i)])
			sim_fail(w,
				 "node %u leads epoch %" PRIx64 " without the committed %" PRIx64
				 ".%" PRIu64,
				 n, s->current_epoch, z->order[at(i)], i);
	}
	check_leases(w);
}

/* ------------------------------------------------------------------ replies */

/* The newest version of a key that the first `upto` entries leave: 0 if none. False: not all of them were seen. */
static bool
version_at(const struct zab_watch *z, uint64_t key, uint64_t upto, uint64_t *version,
	   uint64_t *value)
{
	*version = *value = 0;
	for (uint64_t i = upto; at(i) > 0; i--) {
		const struct zab_entry *e = find(z, z->order[at(i)], i);

		if (e == NULL || !e->told)
			return false;
		if (e->key != key ||
		    (e->flags & (CHP_ZAB_NOTHING | CHP_ZAB_SESSION | CHP_ZAB_RULE)) != 0)
			continue;
		if ((e->flags & CHP_ZAB_REMOVE) == 0) {
			*version = (e->flags & CHP_ZAB_RESTORED) != 0 ? e->number : i;
			*value = e->value;
		}
		return true;
	}
	return true;
}

/* A relaxed read tells what the entries make that were applied when it was answered. */
static void
check_relaxed(struct sim_world *w, uint32_t n, uint32_t key, const struct chp_reply_message *r)
{
	struct zab_watch *z = zab_watch(w);
	struct zab_life *life = &z->life[n];
	const uint64_t told = r->status == CHP_STATUS_OK ? r->version : 0;
	uint8_t bytes[CHP_KEY_BYTES_MAX];
	const uint64_t hash = chp_hash64(bytes, sim_client_key(key, bytes), 0);

	if (life->state.applied < life->read)
		sim_fail(w,
			 "node %u answers a relaxed read after %" PRIu64
			 " entries, as it did after %" PRIu64,
			 n, life->state.applied, life->read);
	life->read = life->state.applied;
	for (uint64_t i = life->state.applied; i + 1 > life->before.applied; i--) {
		uint64_t version, value;

		if (i > z->committed || !version_at(z, hash, i, &version, &value))
			return;
		if (version == told &&
		    (told == 0 || value == chp_hash64(chp_reply_value(r), r->value_total, 0)))
			return;
		if (at(i) == 0)
			break;
	}
	sim_fail(w,
		 "node %u answers a relaxed read of key %u with version %" PRIu64
		 ", which its %" PRIu64 " entries do not give",
		 n, key, told, life->state.applied);
}

/* An acknowledged write is committed, at the place that the reply says. */
static void
check_write(struct sim_world *w, uint32_t n, uint64_t session, const struct chp_reply_message *r)
{
	const struct zab_watch *z = zab_watch(w);
	const struct zab_entry *e;

	if (r->version == 0)
		return;
	e = r->version > z->committed ? NULL : find(z, z->order[at(r->version)], r->version);
	if (e == NULL)
		sim_fail(w,
			 "node %u acknowledges version %" PRIu64 " and %" PRIu64 " are committed",
			 n, r->version, z->committed);
	else if (e->told && session != 0 && (e->session != session || e->request != r->request))
		sim_fail(w, "node %u acknowledges version %" PRIu64 " for another's request", n,
			 r->version);
}

static void
check_replies(struct sim_world *w, uint32_t n)
{
	const struct chp_native *f = &w->node[n].native;

	for (uint32_t i = 0; i < f->n_used; i++) {
		const struct chp_native_datagram *d = &f->datagram[i];
		const struct chp_reply_header *h = (const void *)d->data;
		uint32_t offset = sizeof(*h), client, key;
		const struct chp_reply_message *r;

		memcpy(&client, d->address, sizeof(client));
		while ((r = chp_reply_next(d->data, d->len, &offset)) != NULL) {
			if (r->opcode == CHP_OPCODE_GET && (r->flags & CHP_REPLY_RELAXED) != 0 &&
			    (r->status == CHP_STATUS_OK || r->status == CHP_STATUS_NOT_FOUND) &&
			    sim_client_waits(w, client, h, r, &key))
				check_relaxed(w, n, key, r);
			else if (r->status == CHP_STATUS_OK && r->opcode != CHP_OPCODE_GET &&
				 r->opcode != CHP_OPCODE_PING && r->opcode != CHP_OPCODE_QUORUM)
				check_write(w, n, h->session, r);
		}
	}
}

/* ------------------------------------------------------------------ events */

void
zab_watch_born(struct sim_world *w, uint32_t n)
{
	struct zab_life *life = &zab_watch(w)->life[n];

	free(life->epoch);
	*life = (struct zab_life){ .epoch = NULL };
	chp_zab_inspect(chp_shard_instance(w->node[n].shard), &life->state);
	life->before = life->state;
}

void
zab_watch_ran(struct sim_world *w, uint32_t n, const struct chp_now *now)
{
	struct zab_life *life = &zab_watch(w)->life[n];
	struct chp_zab_state *s = &life->state;

	(void)now;
	life->before = *s;
	life->in_view = w->node[n].shard_view.epoch != 0;
	chp_zab_inspect(chp_shard_instance(w->node[n].shard), s);
	if (life->before.phase != s->phase || life->before.leader != s->leader ||
	    life->before.copying != s->copying)
		sim_trace(w,
			  "node %u: phase %u leader %u epoch %" PRIx64 " accepted %" PRIx64
			  " entries %" PRIu64 " to %" PRIu64 " committed %" PRIu64
			  " applied %" PRIu64 "%s",
			  n, s->phase, s->leader, s->current_epoch, s->accepted_epoch, s->first,
			  s->last, s->committed, s->applied, s->copying ? " copying" : "");
	if (s->current_epoch < life->before.current_epoch ||
	    s->accepted_epoch < life->before.accepted_epoch ||
	    s->current_epoch > s->accepted_epoch || s->applied > s->committed)
		sim_fail(w,
			 "node %u: epoch %" PRIx64 " accepted %" PRIx64 " committed %" PRIu64
			 " applied %" PRIu64,
			 n, s->current_epoch, s->accepted_epoch, s->committed, s->applied);
	check_log(w, n);
	if (s->is_leader && s->phase == CHP_ZAB_BROADCAST && life->led != s->current_epoch)
		established(w, n);
	check_committed(w, n);
	check_leases(w);
	check_replies(w, n);
}

static void
on_propose(struct sim_world *w, const struct chp_zab_propose *m)
{
	struct zab_entry *e = find(zab_watch(w), m->entry_epoch, m->index);

	if (e == NULL || e->told)
		return;
	e->told = true;
	e->flags = m->entry_flags;
	e->status = m->status;
	e->session = m->session;
	e->request = m->request;
	e->number = m->number;
	e->key = m->key_len == 0 ? 0 : chp_hash64(chp_zab_propose_key(m), m->key_len, 0);
	e->value = chp_hash64(chp_zab_propose_value(m), m->value_total, 0);
	sim_trace(w,
		  "entry %" PRIx64 ".%" PRIu64 " flags %x status %u for request %" PRIu64
		  " of session %" PRIx64,
		  e->epoch, e->index, e->flags, e->status, e->request, e->session);
}

void
zab_watch_sends(struct sim_world *w, uint32_t n, const struct chp_peer_header *h,
		const struct chp_message *m)
{
	const struct zab_life *life = &zab_watch(w)->life[n];
	const struct chp_zab_look *look = (const void *)m;

	(void)h;
	if (m->type == CHP_ZAB_PROPOSE)
		on_propose(w, (const void *)m);
	/* [SAFETY 23] Who lost its memory has no vote, and nothing is committed or promised with its help. */
	if (life->in_view && life->state.phase == CHP_ZAB_RECOVERING &&
	    ((m->type == CHP_ZAB_LOOK && look->round != 0) || m->type == CHP_ZAB_NEWEPOCH ||
	     m->type == CHP_ZAB_NEWLEADER || m->type == CHP_ZAB_ACK || m->type == CHP_ZAB_BEAT_ACK))
		sim_fail(w, "node %u is recovering and sends a message of type %02x", n, m->type);
}

void
zab_watch_forget(struct sim_world *w)
{
	struct zab_watch *z = zab_watch(w);

	for (uint32_t n = 0; n < SIM_NODES_MAX; n++)
		free(z->life[n].epoch);
	free(z->entry);
	free(z->order);
	free(z->leaders);
	memset(z, 0, sizeof(*z));
	z->leader = SIM_NODES_MAX;
	z->committed = w->generation << CHP_ZAB_GENERATION_SHIFT;
}

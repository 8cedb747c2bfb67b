/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A cold start (SAFETY 34): every node's memory is lost, and the cluster begins again from what the stores hold, in
 * another generation. With level `datastore` nothing that anybody was told may be missing there, and the history goes
 * on. With level `memory` the versions newer than the newest saved one of each key are lost, and exactly those: the
 * history ends, and another begins with what the stores hold. Only where a member is lost before what its store alone
 * has was reconciled, that is lost, too.
 */
#include "host.h"
#include "kind.h"

#include <inttypes.h>
#include <string.h>

/* The client of what was there at the beginning. */
#define NOBODY UINT64_C(1000000)

static const struct sim_stored *
stored(const struct sim_world *w, uint32_t n, uint32_t key)
{
	uint8_t bytes[CHP_KEY_BYTES_MAX];
	const uint32_t len = sim_client_key(key, bytes);

	return sim_table_find(&w->host[n]->store.durable, bytes, len);
}

static uint64_t
generation_of(const struct sim_stored *s)
{
	return chp_host_generation(s->life);
}

/* How much a store knows of what a generation wrote: all from before the view that it has recorded, but the first. */
static uint64_t
rank_of(const struct sim_world *w, uint32_t n, uint64_t generation)
{
	const uint64_t recorded = w->host[n]->store.durable.epoch;

	if (!w->config.kind->protocol->is_fenced)
		return 0; /* what stores have of one log is all there is to know */
	if (chp_generation(recorded) < generation ||
	    (chp_generation(recorded) == generation && chp_epoch_is_first(recorded)))
		return 0;
	return recorded;
}

/* The newest version of a generation, or an older one, by the word of those who know most of it. */
static const struct sim_stored *
newest_of(const struct sim_world *w, uint64_t sources, uint32_t key, uint64_t generation)
{
	const struct sim_stored *newest = NULL;
	uint64_t rank = 0;

	for (uint64_t from = sources; from != 0; from &= from - 1)
		rank = chp_max_u64(rank, rank_of(w, chp_first_bit(from), generation));
	for (uint64_t from = sources; from != 0; from &= from - 1) {
		const uint32_t n = chp_first_bit(from);
		const struct sim_stored *s = stored(w, n, key);

		if (s != NULL && generation_of(s) == generation && rank_of(w, n, generation) == rank &&
		    (newest == NULL || s->version > newest->version))
			newest = s;
	}
	return newest != NULL || generation == 0 ? newest : newest_of(w, sources, key, generation - 1);
}

/* What the stores that the cluster begins with have of a key; NULL: it was never there. */
static const struct sim_stored *
newest_stored(const struct sim_world *w, uint64_t sources, uint32_t key)
{
	return newest_of(w, sources, key, w->generation);
}

static uint32_t
begin_with(struct sim_world *w, const struct sim_stored *s, enum chp_history_outcome outcome)
{
	const struct chp_history_call call = { .t_ns = w->now_ns,
					       .client = NOBODY,
					       .req = w->history.n_ops,
					       .kind = CHP_HISTORY_PUT,
					       .node = CHP_HISTORY_NONE,
					       .key = s->key,
					       .key_len = s->key_len,
					       .value = s->value,
					       .value_len = s->value_len };
	const struct chp_history_result result = { .t_ns = w->now_ns,
						   .outcome = outcome,
						   .node = CHP_HISTORY_NONE,
						   .version = outcome == CHP_HISTORY_OK ? s->version
										: CHP_HISTORY_NO_VERSION };
	const int64_t i = chp_history_invoke(&w->history, &call);

	if (i < 0 || chp_history_complete(&w->history, (uint32_t)i, &result) != 0)
		sim_fail(w, "history refused what the stores hold");
	return (uint32_t)i;
}

/* The newest version of a key that anybody was told of. */
static uint64_t
newest_told(const struct sim_world *w, uint32_t key)
{
	uint64_t newest = 0;

	for (uint32_t i = 0; i < w->history.n_ops; i++) {
		const struct chp_history_op *op = &w->history.op[i];
		const struct chp_history_key *k = &w->history.key[op->key];

		if (op->outcome == CHP_HISTORY_OK && sim_client_key_number(k->bytes, k->len) == key)
			newest = chp_max_u64(newest, op->version);
	}
	return newest;
}

/* [SAFETY 33] With level `datastore`. */
static void
check_told(struct sim_world *w, uint64_t sources, uint32_t key)
{
	const struct sim_stored *s = newest_stored(w, sources, key);
	const uint64_t told = newest_told(w, key);

	if (told > (s == NULL ? 0 : s->version))
		sim_fail(w, "a cold start without key %u at version %" PRIu64 ".%u, which was acknowledged", key,
			 chp_version_counter(told), (uint16_t)told);
}

/*
 * A protocol that keeps its members does not wait for a source that is silent if a majority of all answers: a version
 * is certain to be found where each majority of the sources has it.
 */
static bool
is_at_enough(const struct sim_world *w, uint64_t sources, uint32_t key, const struct sim_stored *newest)
{
	const uint32_t majority = w->config.n_nodes / 2 + 1, n = chp_count_bits(sources);
	uint32_t have = 0;

	if (w->config.kind->protocol->is_fenced || n <= majority)
		return true;
	for (uint64_t from = sources; from != 0; from &= from - 1) {
		const struct sim_stored *s = stored(w, chp_first_bit(from), key);

		have += s != NULL && s->version == newest->version;
	}
	return have + majority > n;
}

/* What may be found instead. */
static void
begin_with_older(struct sim_world *w, uint64_t sources, uint32_t key, const struct sim_stored *newest)
{
	for (uint64_t from = sources; from != 0; from &= from - 1) {
		const struct sim_stored *s = stored(w, chp_first_bit(from), key);

		if (s != NULL && s->version != newest->version && (s->flags & CHP_HOST_TOMBSTONE) == 0)
			begin_with(w, s, CHP_HISTORY_UNKNOWN);
	}
}

static void
go_on_from(struct sim_world *w, uint64_t sources)
{
	for (uint32_t key = 0; key < w->config.n_keys; key++) {
		const struct sim_stored *s = newest_stored(w, sources, key);

		w->first[key] = (struct sim_first){ .history = CHP_HISTORY_NONE };
		if (s == NULL)
			continue;
		w->first[key].version = s->version;
		sim_trace(w, "key %u goes on from version %" PRIu64 ".%u%s", key, chp_version_counter(s->version),
			  (uint16_t)s->version, (s->flags & CHP_HOST_TOMBSTONE) != 0 ? ", deleted" : "");
		/* With level `datastore` the history goes on, and its own writes are what is there. */
		if ((s->flags & CHP_HOST_TOMBSTONE) == 0 && !w->config.shard.is_durable)
			w->first[key].history =
				begin_with(w, s, is_at_enough(w, sources, key, s) ? CHP_HISTORY_OK
										  : CHP_HISTORY_UNKNOWN);
		if (!w->config.shard.is_durable && !is_at_enough(w, sources, key, s))
			begin_with_older(w, sources, key, s);
	}
}

/* Whether somebody who is there has this version of a key, or a newer one. */
static bool
is_known(struct sim_world *w, uint64_t live, uint32_t key, uint64_t version)
{
	for (; live != 0; live &= live - 1) {
		const uint32_t n = chp_first_bit(live);
		const struct sim_stored *s = stored(w, n, key);

		if ((s != NULL && s->version >= version) ||
		    (w->node[n].alive && sim_backed_cached(w, n, key) >= version))
			return true;
	}
	return false;
}

void
sim_cold_lost(struct sim_world *w, const struct chp_view *before, const struct chp_view *v)
{
	const uint64_t left = before->sources & chp_view_live(v);

	if (left == before->sources || w->config.shard.is_durable)
		return;
	for (uint32_t key = 0; key < w->config.n_keys; key++) {
		struct sim_first *f = &w->first[key];
		const struct sim_stored *s = newest_stored(w, left, key);

		if (f->version == 0 || is_known(w, chp_view_live(v), key, f->version))
			continue;
		sim_trace(w, "key %u has lost version %" PRIu64 ".%u", key, chp_version_counter(f->version),
			  (uint16_t)f->version);
		if (f->history != CHP_HISTORY_NONE) { /* as if it had never been said to be there */
			w->history.op[f->history].outcome = CHP_HISTORY_UNKNOWN;
			w->history.op[f->history].version = CHP_HISTORY_NO_VERSION;
		}
		f->version = 0;
		if (s != NULL && (s->flags & CHP_HOST_TOMBSTONE) == 0)
			begin_with(w, s, CHP_HISTORY_UNKNOWN);
	}
}

/*
 * What stores have recorded says who knows most: nothing that was saved at most of all may be missing. Of a generation
 * of which nobody has recorded anything, all know the same.
 */
static void
check_sources(struct sim_world *w, const struct chp_view *v)
{
	uint64_t newest = 0;

	for (uint64_t live = chp_view_live(v); live != 0; live &= live - 1)
		newest = chp_max_u64(newest, w->host[chp_first_bit(live)]->store.durable.epoch);
	for (uint64_t from = v->sources;
	     w->config.kind->protocol->is_fenced && from != 0 && chp_generation(newest) + 1 == chp_generation(v->epoch);
	     from &= from - 1) {
		const uint64_t epoch = w->host[chp_first_bit(from)]->store.durable.epoch;

		if (sim_membership_epoch(w, epoch) < sim_membership_epoch(w, newest))
			sim_fail(w, "a cold start takes the store of node %u, which knows of view %" PRIu64
				 ", and another one knows of view %" PRIu64,
				 chp_first_bit(from), epoch, newest);
	}
	if (2 * chp_count_bits(chp_view_live(v)) <= w->config.n_nodes)
		sim_fail(w, "a cold start with the stores of %u", chp_count_bits(chp_view_live(v)));
}

void
sim_cold_start(struct sim_world *w, const struct chp_view *v)
{
	check_sources(w, v);
	sim_trace(w, "cold start: generation %" PRIu64 " from the stores of %" PRIx64, v->epoch >> CHP_GENERATION_SHIFT,
		  v->sources);
	w->seen.cold_starts++;
	w->generation = v->epoch >> CHP_GENERATION_SHIFT;
	w->n_entered = 0;
	w->n_possible = 0;
	w->same_epoch = 0;
	memset(w->writer, 0, sizeof(w->writer));
	sim_once_forget(w);
	w->config.kind->forget(w);
	if (w->config.shard.is_durable) {
		for (uint32_t key = 0; key < w->config.n_keys; key++)
			check_told(w, v->sources, key);
		return;
	}
	sim_clients_give_up(w);
	sim_check_history(w);
	chp_history_reset(&w->history);
	go_on_from(w, v->sources);
	sim_clients_go_on(w);
}

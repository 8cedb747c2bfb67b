/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A cold start (SAFETY 34): every node's memory is lost, and the cluster begins again from what the stores hold, in
 * another generation. With level `datastore` its history goes on: nothing that was acknowledged may be missing. With
 * level `memory` the versions newer than the newest saved one of each key are lost, and exactly those: the
 * history ends there, and another begins with what the stores held. Only where a member is lost before what its store
 * alone has was reconciled, that is lost, too.
 */
#include "host.h"
#include "kind.h"

#include <inttypes.h>
#include <string.h>

/* The client of what was there at the beginning. */
#define NOBODY UINT64_C(1000000)

/* The newest version of a key in the stores that the cluster begins with; NULL: it was never there. */
static const struct sim_stored *
newest_stored(const struct sim_world *w, uint64_t sources, uint32_t key)
{
	uint8_t bytes[CHP_KEY_BYTES_MAX];
	const uint32_t len = sim_client_key(key, bytes);
	const struct sim_stored *newest = NULL;

	for (; sources != 0; sources &= sources - 1) {
		const struct sim_store *store = &w->host[chp_first_bit(sources)]->store;
		const struct sim_stored *s = sim_table_find(&store->durable, bytes, len);

		if (s != NULL && (newest == NULL || s->version > newest->version))
			newest = s;
	}
	return newest;
}

/* A write that is over before anything else happens. */
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

static void
cut_history(struct sim_world *w, uint64_t sources)
{
	sim_clients_give_up(w);
	sim_check_history(w);
	chp_history_reset(&w->history);
	for (uint32_t key = 0; key < w->config.n_keys; key++) {
		const struct sim_stored *s = newest_stored(w, sources, key);

		w->first[key] = (struct sim_first){ .history = CHP_HISTORY_NONE };
		if (s == NULL)
			continue;
		w->first[key].version = s->version;
		sim_trace(w, "key %u goes on from version %" PRIu64 ".%u%s", key, chp_version_counter(s->version),
			  (uint16_t)s->version, (s->flags & CHP_HOST_TOMBSTONE) != 0 ? ", deleted" : "");
		if ((s->flags & CHP_HOST_TOMBSTONE) == 0)
			w->first[key].history = begin_with(w, s, CHP_HISTORY_OK);
	}
	sim_clients_go_on(w);
}

/* Whether somebody who is there has this version of a key, or a newer one. */
static bool
is_known(struct sim_world *w, uint64_t live, uint32_t key, uint64_t version)
{
	for (; live != 0; live &= live - 1) {
		const uint32_t n = chp_first_bit(live);
		const struct sim_stored *s = newest_stored(w, chp_bit(n), key);

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

void
sim_cold_start(struct sim_world *w, const struct chp_view *v)
{
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
	if (!w->config.shard.is_durable)
		cut_history(w, v->sources);
}

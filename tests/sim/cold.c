/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A cold start (SAFETY 34): every node's memory is lost, and the cluster begins again from what the stores hold, in
 * another generation. With level `datastore` its history goes on: nothing that was acknowledged may be missing. With
 * level `memory` the versions newer than the newest saved one of each key are lost, and exactly those: the
 * history ends there, and another begins with what the stores held.
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
static void
begin_with(struct sim_world *w, uint32_t key, const struct sim_stored *s)
{
	const struct chp_history_call call = { .t_ns = w->now_ns,
					       .client = NOBODY,
					       .req = key,
					       .kind = CHP_HISTORY_PUT,
					       .node = CHP_HISTORY_NONE,
					       .key = s->key,
					       .key_len = s->key_len,
					       .value = s->value,
					       .value_len = s->value_len };
	const struct chp_history_result result = { .t_ns = w->now_ns,
						   .outcome = CHP_HISTORY_OK,
						   .node = CHP_HISTORY_NONE,
						   .version = s->version };
	const int64_t i = chp_history_invoke(&w->history, &call);

	if (i < 0 || chp_history_complete(&w->history, (uint32_t)i, &result) != 0)
		sim_fail(w, "history refused what the stores hold");
}

static void
cut_history(struct sim_world *w, uint64_t sources)
{
	sim_clients_give_up(w);
	sim_check_history(w);
	chp_history_reset(&w->history);
	for (uint32_t key = 0; key < w->config.n_keys; key++) {
		const struct sim_stored *s = newest_stored(w, sources, key);

		if (s == NULL)
			continue;
		sim_trace(w, "key %u goes on from version %" PRIu64 ".%u%s", key, chp_version_counter(s->version),
			  (uint16_t)s->version, (s->flags & CHP_HOST_TOMBSTONE) != 0 ? ", deleted" : "");
		if ((s->flags & CHP_HOST_TOMBSTONE) == 0)
			begin_with(w, key, s);
	}
	sim_clients_go_on(w);
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

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * scene_host.h - the host of a scenario's node: the shipped datastore interface, and a store that does at once what it
 * is asked for, or waits with it until it is told to go on.
 */
#ifndef CHP_TESTS_SIM_SCENE_HOST_H
#define CHP_TESTS_SIM_SCENE_HOST_H

#include "dsi/dsi.h"
#include "kind.h"
#include "store.h"

struct scene_host {
	bool exists, alive;
	bool holds;   /* the store waits with everything that it is asked for */
	bool is_new;  /* the interface has not seen the store */
	bool fails;   /* reads fail */
	uint32_t starts;
	struct sim_store store;
	struct chp_dsi *dsi;
	struct chp_store_request *open[2 * CHP_DSI_REQUESTS_MAX]; /* with the store, in order */
	uint32_t n_open;
	uint64_t wake_ns;
};

/** The process begins, for the first time or again. */
void scene_host_start(struct scene_host *h, const struct chp_shard_config *s, uint32_t n);

/** The process ends; what its store waits with is lost. */
void scene_host_crash(struct scene_host *h);

/** The process runs once with these packets; fx->wake_ns says when it wants to again. */
void scene_host_run(struct scene_host *h, uint64_t now_ns, const struct chp_dsi_packet *packet, uint32_t n,
		    struct chp_dsi_effects *fx);

/** What the store holds: a key, or everything. */
void scene_host_print_store(FILE *out, const struct scene_host *h, const struct sim_kind *kind, const char *key);

/** A message of the channel in words; whether it says nothing that is worth a line. */
void scene_host_print(FILE *out, const struct sim_kind *kind, const struct chp_message *m);
bool scene_host_is_dull(const struct chp_message *m);

/** A HELLO or what answers it, in words. */
void scene_host_print_hello(FILE *out, const struct chp_host_hello *m);

#endif /* CHP_TESTS_SIM_SCENE_HOST_H */

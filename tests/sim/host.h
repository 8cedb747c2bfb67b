/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * host.h - a node's host: a process with the shipped datastore interface (lib/dsi), and a store.
 */
#ifndef CHP_TESTS_SIM_HOST_H
#define CHP_TESTS_SIM_HOST_H

#include "dsi/dsi.h"
#include "store.h"
#include "world.h"

/* Something that the store was asked for. Its answer is written where the request says, if who asked is still there. */
struct sim_job;

struct sim_host {
	/* The store: it outlives the process, and what is in `durable` outlives everything. */
	struct sim_store store;
	uint32_t flags;                  /* enum chp_store_flag */
	uint64_t slow_until_ns, down_until_ns;
	bool is_doomed;                /* dies when what it does now is done */
	struct sim_job *job;             /* oldest first */

	/* The process. */
	bool alive;
	uint64_t clock_offset_ns;
	struct chp_dsi *dsi;
	struct chp_store_info info;
	bool news;                       /* info has changed since the interface saw it */
	bool is_open;                    /* the store; the interface has been given the record */
	uint64_t life, batch;            /* what the store must have as record, unless it was replaced */
	struct chp_store_request *done[CHP_DSI_REQUESTS_MAX];
	uint32_t n_done;
	struct sim_packet *inbox[SIM_INBOX_MAX];
	uint32_t n_inbox;
	uint64_t at_ns;                  /* of the event that counts; CHP_NEVER: none */
	uint64_t resume_ns;              /* when the interface asked to be called again */
};

#endif /* CHP_TESTS_SIM_HOST_H */

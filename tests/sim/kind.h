/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * kind.h - what the simulator must know of one protocol: which worlds its seeds draw, which losses it survives, what
 * its messages say, and what must hold of it over all nodes. Everything else serves all protocols.
 */
#ifndef CHP_TESTS_SIM_KIND_H
#define CHP_TESTS_SIM_KIND_H

#include "world.h"

#include <stdio.h>

/* Where a mutation is hunted. */
struct sim_ground {
	uint32_t mutation;    /* enum chp_mutation; CHP_MUTATION_NONE ends a list */
	uint32_t replicas, profile;
	const char *scenario; /* which must fail with it, for what no seed can show; otherwise NULL */
};

struct sim_kind {
	const struct chp_protocol *protocol;
	size_t watch_bytes;   /* of w->watch: what it remembers of a run; zeros at first */
	bool by_writer;       /* versions and numbers of sessions name a writer of a view */

	/* The worlds: what is drawn on top of draw.c, of each profile. NULL: nothing. */
	void (*draw[SIM_PROFILES])(struct sim_config *c, struct chp_random *r);
	const struct sim_ground *grounds;

	/* Types of messages at which senders may fail, and the node on which most depends (or SIM_NODES_MAX). */
	const uint8_t *triggers;
	uint32_t n_triggers;
	uint32_t (*target)(struct sim_world *w);

	/* Whether the cluster becomes whole again without the memory of `lost`, while `disturbed` seem to be dead. */
	bool (*bearable)(const struct sim_world *w, uint64_t lost, uint64_t disturbed);
	/* Whether all nodes that are to be there take part, and all know it. */
	bool (*whole)(const struct sim_world *w);

	/* Whether nothing is under way at a node, in a whole cluster. */
	bool (*is_idle)(const struct sim_world *w, uint32_t n);

	/* A node has a new, empty shard. */
	void (*born)(struct sim_world *w, uint32_t n);
	/* A shard has run; its replies are in the node's frontend and not sent yet. */
	void (*ran)(struct sim_world *w, uint32_t n, const struct chp_now *now);
	/* The run is over, or all it knew of the cluster is: the next first view founds another. */
	void (*forget)(struct sim_world *w);
	/* A shard sends a message, perhaps again. */
	void (*sends)(struct sim_world *w, uint32_t n, const struct chp_peer_header *h, const struct chp_message *m);
	/* Whether a node's state is being copied anew, over what was there. NULL: never in one life. */
	bool (*is_copying)(const struct sim_world *w, uint32_t n);
	/* Whether keys that are settled at both of two live nodes must have the same version. */
	bool (*agree)(const struct sim_world *w, uint32_t a, uint32_t b);

	/* For scenarios: one of its own messages in words; whether it says nothing that is worth a line. */
	void (*print)(FILE *out, const struct chp_message *m);
	bool (*is_dull)(const struct chp_message *m);
};

extern const struct sim_kind sim_hermes, sim_zab;

/** By the protocol's name, or by number; NULL if there is none. */
const struct sim_kind *sim_kind_find(const char *name);
const struct sim_kind *sim_kind_at(uint32_t i);

/* Parts of printing. */
void sim_print_bytes(FILE *out, const uint8_t *bytes, uint32_t len);
void sim_print_version(FILE *out, const struct sim_kind *kind, const char *before, uint64_t version);
void sim_print_session(FILE *out, uint64_t id);

#endif /* CHP_TESTS_SIM_KIND_H */

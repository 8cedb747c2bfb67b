/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * gather.h - what every member says of itself at about the same moment, for status --watch and
 * cluster-health.
 */
#ifndef CHAAPARCTL_GATHER_H
#define CHAAPARCTL_GATHER_H

#include "ctl.h"

#define GATHER_TEXT_BYTES 256u

/* One member. Texts are empty and numbers 0 where it did not say. */
struct gather_node {
	struct chaapar_member member;
	enum chaapar_status status; /* of asking it */
	json_t *json;               /* section 0 of its status; NULL: no usable answer */
	const json_t *membership;   /* inside json, NULL if it has none */
	char state[16], role[16], waiting[GATHER_TEXT_BYTES];
	uint64_t epoch, lease_ms, lives;
	bool is_voter, is_learner;
	bool serves; /* a voter that may answer clients */
};

struct gather {
	char cluster[CHAAPAR_NAME_BYTES];
	struct gather_node node[CHAAPAR_NODES_MAX];
	uint32_t n, configured;
	const struct gather_node *newest; /* who knows the newest view; NULL: nobody answered */
};

/** Ask all members, or one. Takes as long as the handle's time-out if any is silent. */
void gather(struct chaapar *c, int only, struct gather *g);
void gather_free(struct gather *g);

/** What the newest view's member says of a node: an object, or NULL. */
const json_t *gather_member(const struct gather *g, uint32_t id);

/** Why a node does not serve in the newest view; empty if it does. */
void gather_why(const struct gather *g, const struct gather_node *n, char *to, size_t size);

/** A member of a JSON object: printable text, or a number that is not negative; "" or 0 if it is
 * none. */
void gather_text(const json_t *object, const char *key, char *to, size_t size);
uint64_t gather_number(const json_t *object, const char *key);

#endif /* CHAAPARCTL_GATHER_H */

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
	const json_t *membership, *instances; /* inside json, NULL if it has none */
	char state[16], role[16], waiting[GATHER_TEXT_BYTES];
	uint64_t epoch, lease_ms, lives;
	bool is_voter, is_learner;
	bool serves; /* a voter that may answer clients */
};

/* What one member says of one shard. */
struct gather_instance {
	char role[24], quorum[16], waiting[GATHER_TEXT_BYTES];
	uint64_t epoch, committed, applied;
	int leader; /* -1: none that it knows */
	bool is_leader;
};

/* A shard, as all say together. */
struct gather_shard {
	char quorum[16];
	uint64_t epoch, committed; /* the newest that any member knows */
	int leader;                /* -1: none */
	bool is_sure;              /* the leader itself says so */
};

struct gather {
	char cluster[CHAAPAR_NAME_BYTES];
	struct gather_node node[CHAAPAR_NODES_MAX];
	uint32_t n, configured, shards;
	const struct gather_node *newest; /* who knows the newest view; NULL: nobody answered */
};

/** Ask all members, or one. Takes as long as the handle's time-out if any is silent. */
void gather(struct chaapar *c, int only, struct gather *g);
void gather_free(struct gather *g);

/** What the newest view's member says of a node: an object, or NULL. */
const json_t *gather_member(const struct gather *g, uint32_t id);

/** Why a node does not serve in the newest view; empty if it does. */
void gather_why(const struct gather *g, const struct gather_node *n, char *to, size_t size);

/** What a node says of a shard. False if it says nothing. */
bool gather_instance(const struct gather_node *n, uint32_t shard, struct gather_instance *out);

/** What all say of a shard. False if nobody says anything. */
bool gather_shard(const struct gather *g, uint32_t shard, struct gather_shard *out);

/** Whether the cluster's protocol has leaders. */
bool gather_has_leaders(const struct gather *g);

/** Name of a member; "-" for -1. */
const char *gather_name(const struct gather *g, int id);

/** A member of a JSON object: printable text, or a number that is not negative; "" or 0 if it is
 * none. */
void gather_text(const json_t *object, const char *key, char *to, size_t size);
uint64_t gather_number(const json_t *object, const char *key);

#endif /* CHAAPARCTL_GATHER_H */

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which operation comes next, on which key, with which value.
 */
#include "load.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PRELOAD_TRIES_MAX 20u

/* ---- the mix ---- */

static int
kind_of(const char *name, size_t len)
{
	for (uint32_t k = 0; k < LOAD_KINDS; k++) {
		const char *known = chp_history_kind_name(k);

		if (strlen(known) == len && memcmp(known, name, len) == 0)
			return (int)k;
	}
	return len == 3 && memcmp(name, "del", 3) == 0 ? CHP_HISTORY_DELETE : -1;
}

bool
load_mix_parse(const struct ctl *ctl, const char *text, struct load_options *o)
{
	char number[8];

	memset(o->weight, 0, sizeof(o->weight));
	o->weight_sum = 0;
	while (text[0] != '\0') {
		size_t len = strcspn(text, ","), name_len = strcspn(text, "=,");
		int kind = kind_of(text, name_len);
		uint64_t weight;

		if (kind < 0 || name_len == len || len - name_len - 1 >= sizeof(number)) {
			ctl_usage(
				ctl,
				"--mix: expected OPERATION=WEIGHT,... with operations get put cas "
				"incr decr delete add replace append prepend, not \"%s\"",
				text);
			return false;
		}
		memcpy(number, text + name_len + 1, len - name_len - 1);
		number[len - name_len - 1] = '\0';
		if (!ctl_number(ctl, "--mix: weight", number, 0, 10000, &weight))
			return false;
		o->weight_sum += (uint32_t)weight - o->weight[kind];
		o->weight[kind] = (uint32_t)weight;
		text += text[len] == ',' ? len + 1 : len;
	}
	if (o->weight_sum == 0)
		ctl_usage(ctl, "--mix: all weights are 0");
	return o->weight_sum > 0;
}

static enum chp_history_kind
choose(struct load *l)
{
	uint32_t at = (uint32_t)chp_random_below(&l->random, l->o.weight_sum), k = 0;

	while (at >= l->o.weight[k])
		at -= l->o.weight[k++];
	return (enum chp_history_kind)k;
}

/* ---- one operation ---- */

/* Numbers live in keys of their own, so that incr finds some. */
static void
name_key(const struct load *l, struct load_slot *slot, bool numeric, uint64_t number)
{
	int n = snprintf(slot->key, sizeof(slot->key), "%s%s%0*llu", l->o.prefix,
			 numeric ? "n" : "", numeric ? 6 : 7, (unsigned long long)number);

	slot->call.key = slot->key;
	slot->call.key_len = (uint32_t)n;
}

/* Nobody ever writes the same value twice: client and counter are in it. */
static void
unique_value(struct load_slot *slot, uint32_t len)
{
	struct load_client *client = slot->client;
	char token[LOAD_VALUE_BYTES_MIN + 1];

	snprintf(token, sizeof(token), "%010llx:%010llx",
		 (unsigned long long)client->id & 0xffffffffff,
		 (unsigned long long)++client->counter & 0xffffffffff);
	memset(slot->value, '.', len);
	memcpy(slot->value, token, LOAD_VALUE_BYTES_MIN);
	slot->call.value = slot->value;
	slot->call.value_len = len;
}

static void on_end(struct chaapar *c, void *arg, const struct chaapar_result *r);

static int
submit(struct load_slot *s)
{
	struct chaapar *c = s->client->c;
	const struct chp_history_call *q = &s->call;

	switch (q->kind) {
	case CHP_HISTORY_GET:
		return (s->is_relaxed ? chaapar_get_relaxed : chaapar_get)(c, q->key, q->key_len, on_end, s);
	case CHP_HISTORY_PUT:
		return chaapar_put(c, q->key, q->key_len, q->value, q->value_len, on_end, s);
	case CHP_HISTORY_DELETE:
		return chaapar_delete(c, q->key, q->key_len, on_end, s);
	case CHP_HISTORY_CAS:
		return chaapar_cas(c, q->key, q->key_len, q->arg, q->value, q->value_len, on_end,
				   s);
	case CHP_HISTORY_ADD:
		return chaapar_add(c, q->key, q->key_len, q->value, q->value_len, on_end, s);
	case CHP_HISTORY_REPLACE:
		return chaapar_replace(c, q->key, q->key_len, q->value, q->value_len, on_end, s);
	case CHP_HISTORY_APPEND:
		return chaapar_append(c, q->key, q->key_len, q->value, q->value_len, on_end, s);
	case CHP_HISTORY_PREPEND:
		return chaapar_prepend(c, q->key, q->key_len, q->value, q->value_len, on_end, s);
	case CHP_HISTORY_INCR:
		return chaapar_incr(c, q->key, q->key_len, q->arg, on_end, s);
	default:
		return chaapar_decr(c, q->key, q->key_len, q->arg, on_end, s);
	}
}

/* Record, then submit: an operation must not take effect before its invocation. */
static void
start(struct load *l, struct load_slot *slot)
{
	struct chp_history_call *q = &slot->call;
	int err;

	q->client = slot->client->id;
	q->req = ++slot->client->req;
	q->node = chaapar_node(slot->client->c);
	q->t_ns = load_now_ns();
	if (l->history != NULL && !slot->is_relaxed && chp_history_write_call(l->history, q) != 0)
		l->history_failed = true;
	err = submit(slot);
	if (err != 0) {
		/* Out of memory, or a value beyond the cluster's maximum: never sent. */
		struct chaapar_result r = { .status = err == -EMSGSIZE ? CHAAPAR_TOO_LARGE
								       : CHAAPAR_NO_MEMORY,
					    .node = CHAAPAR_ANY_NODE };

		load_ended(l, slot, &r);
		l->issuing = false;
		slot->next = slot->client->idle;
		slot->client->idle = slot;
	}
}

static void
begin(struct load_slot *slot, enum chp_history_kind kind)
{
	slot->call = (struct chp_history_call){ .kind = kind };
	slot->is_preload = slot->then_cas = slot->is_relaxed = false;
}

void
load_next(struct load *l, struct load_slot *slot)
{
	enum chp_history_kind kind = choose(l);
	bool numeric = kind == CHP_HISTORY_INCR || kind == CHP_HISTORY_DECR;
	uint64_t rank = load_zipf_next(&l->zipf, &l->random) - 1;

	l->issued++;
	begin(slot, kind == CHP_HISTORY_CAS ? CHP_HISTORY_GET : kind);
	slot->then_cas = kind == CHP_HISTORY_CAS;
	slot->is_relaxed = kind == CHP_HISTORY_GET && chp_random_below(&l->random, 100) < l->o.relaxed_pct;
	slot->key_number = numeric ? rank % l->numeric_keys : rank;
	name_key(l, slot, numeric, slot->key_number);
	switch (kind) {
	case CHP_HISTORY_PUT:
	case CHP_HISTORY_ADD:
	case CHP_HISTORY_REPLACE:
		unique_value(slot, (uint32_t)l->o.value_bytes);
		break;
	case CHP_HISTORY_APPEND:
	case CHP_HISTORY_PREPEND:
		unique_value(slot, LOAD_VALUE_BYTES_MIN);
		break;
	case CHP_HISTORY_INCR:
	case CHP_HISTORY_DECR:
		slot->call.arg = 1 + chp_random_below(&l->random, 9);
		break;
	default:
		break;
	}
	start(l, slot);
}

/* ---- loading every key once ---- */

static void
preload(struct load *l, struct load_slot *slot)
{
	bool numeric = slot->key_number >= l->o.keys;

	begin(slot, CHP_HISTORY_PUT);
	slot->is_preload = true;
	name_key(l, slot, numeric, numeric ? slot->key_number - l->o.keys : slot->key_number);
	if (numeric) {
		slot->value[0] = '0';
		slot->call.value = slot->value;
		slot->call.value_len = 1;
	} else {
		unique_value(slot, (uint32_t)l->o.value_bytes);
	}
	start(l, slot);
}

bool
load_preload_next(struct load *l, struct load_slot *slot)
{
	if (l->preload_next == l->o.keys + l->numeric_keys || !l->issuing)
		return false;
	slot->key_number = l->preload_next++;
	slot->tries = 0;
	preload(l, slot);
	return true;
}

/* ---- the end of an operation, and the next one ---- */

/* True: the slot has a follow-up of its own. */
static bool
follow_up(struct load *l, struct load_slot *slot, const struct chaapar_result *r)
{
	if (!l->issuing)
		return false;
	if (slot->is_preload && r->status != CHAAPAR_OK) {
		if (++slot->tries < PRELOAD_TRIES_MAX) {
			preload(l, slot);
			return true;
		}
		l->preload_failed++;
	}
	if (slot->is_preload) {
		l->preload_done++;
		return load_preload_next(l, slot);
	}
	if (slot->then_cas && r->status == CHAAPAR_OK) {
		begin(slot, CHP_HISTORY_CAS);
		name_key(l, slot, false, slot->key_number);
		unique_value(slot, (uint32_t)l->o.value_bytes);
		slot->call.arg = r->version;
		start(l, slot);
		return true;
	}
	/* The first to count on a key that was not loaded starts it. */
	if ((slot->call.kind == CHP_HISTORY_INCR || slot->call.kind == CHP_HISTORY_DECR) &&
	    r->status == CHAAPAR_NOT_FOUND) {
		begin(slot, CHP_HISTORY_ADD);
		name_key(l, slot, true, slot->key_number);
		slot->value[0] = '0';
		slot->call.value = slot->value;
		slot->call.value_len = 1;
		start(l, slot);
		return true;
	}
	return false;
}

static void
on_end(struct chaapar *c, void *arg, const struct chaapar_result *r)
{
	struct load_slot *slot = arg;
	struct load *l = slot->client->load;

	(void)c;
	load_ended(l, slot, r);
	if (follow_up(l, slot, r))
		return;
	slot->next = slot->client->idle;
	slot->client->idle = slot;
}

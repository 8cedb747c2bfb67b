/* SPDX-License-Identifier: BSD-3-Clause */
#include "wire/zab.h"

#include "wire/client.h"

#include <string.h>

/* A session's number: 8 bytes, not 0. */
static bool
check_session_key(const struct chp_zab_propose *p)
{
	static const uint8_t none[sizeof(uint64_t)];

	return p->key_len == sizeof(none) && memcmp(chp_zab_propose_key(p), none, sizeof(none)) != 0;
}

/* Of no client, and older than the log. */
static bool
check_restored(const struct chp_zab_propose *p, uint32_t kinds)
{
	return (kinds == 0 || kinds == CHP_ZAB_REMOVE) && (p->entry_flags & CHP_ZAB_SESSION) == 0 && p->session == 0 &&
	       p->status == CHP_STATUS_OK && p->key_len > 0 && p->number != 0 && p->number < p->index;
}

static bool
check_propose(const struct chp_message *m, uint32_t value_max)
{
	const struct chp_zab_propose *p = (const void *)m;
	uint32_t kinds;

	if (m->len < sizeof(*p))
		return false;
	kinds = p->entry_flags & (CHP_ZAB_REMOVE | CHP_ZAB_NOTHING | CHP_ZAB_RULE);
	if (p->key_len > CHP_KEY_BYTES_MAX || p->value_total > value_max ||
	    m->len != chp_zab_propose_bytes(p->key_len, p->value_total))
		return false;
	if ((p->entry_flags & ~CHP_ZAB_ENTRY_FLAGS_ALL) != 0 || (kinds & (kinds - 1)) != 0 || p->reserved != 0 ||
	    p->status >= CHP_STATUS_COUNT)
		return false;
	if (p->index == 0 || p->index > CHP_ZAB_INDEX_MAX || p->entry_epoch == 0 || p->entry_epoch > p->epoch)
		return false;
	if (kinds != 0 && p->value_total != 0)
		return false;
	if ((p->entry_flags & CHP_ZAB_RESTORED) != 0 && !check_restored(p, kinds))
		return false;
	if (kinds == CHP_ZAB_RULE)
		return p->key_len == 0 && p->number <= CHP_ZAB_ALL && (p->entry_flags & CHP_ZAB_SESSION) == 0;
	if ((p->entry_flags & CHP_ZAB_SESSION) != 0 && !check_session_key(p))
		return false;
	return p->key_len > 0 || kinds == CHP_ZAB_NOTHING;
}

static bool
check_history(const struct chp_zab_history *h)
{
	if (h->n_runs > CHP_ZAB_RUNS_MAX || (h->flags & ~(uint32_t)CHP_ZAB_INCOMPLETE) != 0 ||
	    h->committed > h->last || h->last > CHP_ZAB_INDEX_MAX)
		return false;
	for (uint32_t i = 0; i < h->n_runs; i++) {
		if (h->run[i].first <= h->committed || h->run[i].first > h->last || h->run[i].epoch > h->last_epoch)
			return false;
		if (i > 0 && (h->run[i].first <= h->run[i - 1].first || h->run[i].epoch <= h->run[i - 1].epoch))
			return false;
	}
	return true;
}

static bool
check_look(const struct chp_message *m)
{
	const struct chp_zab_look *l = (const void *)m;

	return m->len == sizeof(*l) && l->round <= CHP_ZAB_COUNT_MAX && l->accepted_epoch <= CHP_ZAB_EPOCH_MAX &&
	       (l->look_flags & ~(uint64_t)CHP_ZAB_JOIN) == 0;
}

static bool
check_newepoch(const struct chp_message *m)
{
	const struct chp_zab_newepoch *e = (const void *)m;

	return m->len == sizeof(*e) && e->round <= CHP_ZAB_COUNT_MAX && e->epoch != 0 && e->epoch <= CHP_ZAB_EPOCH_MAX;
}

static bool
check_index(const struct chp_message *m)
{
	const struct chp_zab_index *i = (const void *)m;

	return m->len == sizeof(*i) &&
	       (i->index_flags & ~(uint64_t)(m->type == CHP_ZAB_COMMIT ? CHP_ZAB_UPTODATE : 0)) == 0;
}

static bool
check_recovered(const struct chp_message *m)
{
	const struct chp_zab_recovered *r = (const void *)m;

	return m->len == sizeof(*r) && r->accepted_epoch <= CHP_ZAB_EPOCH_MAX &&
	       (r->recovered_flags & ~(uint64_t)CHP_ZAB_ESTABLISHED) == 0;
}

static bool
check_sync(const struct chp_message *m)
{
	const struct chp_zab_sync *s = (const void *)m;

	return m->len == sizeof(*s) && s->keep <= s->end && s->end <= CHP_ZAB_INDEX_MAX && s->keep_epoch <= s->epoch &&
	       (s->sync_flags & ~(uint64_t)(CHP_ZAB_SNAP | CHP_ZAB_RULE_ALL | CHP_ZAB_BEYOND)) == 0;
}

static bool
check_beat(const struct chp_message *m)
{
	const struct chp_zab_beat *b = (const void *)m;

	return m->len == sizeof(*b) &&
	       (b->beat_flags & ~(uint64_t)(m->type == CHP_ZAB_BEAT_ACK ? CHP_ZAB_HOST_READY : 0)) == 0;
}

static bool
check_fetch(const struct chp_message *message)
{
	const struct chp_zab_fetch *m = (const void *)message;

	return message->len >= sizeof(*m) && m->key_len >= 1 && m->key_len <= CHP_KEY_BYTES_MAX &&
	       message->len == chp_align_u32((uint32_t)sizeof(*m) + m->key_len, CHP_MESSAGE_ALIGN);
}

static bool
check_fetched(const struct chp_message *message, uint32_t value_max)
{
	const struct chp_zab_fetched *m = (const void *)message;

	if (message->len < sizeof(*m) || m->status > CHP_ZAB_FETCH_KNOWN || m->value_total > value_max ||
	    message->len != chp_align_u32((uint32_t)sizeof(*m) + m->value_total, CHP_MESSAGE_ALIGN))
		return false;
	if (m->value_total != 0 && m->status != CHP_ZAB_FETCH_FOUND)
		return false;
	return (m->version != 0) == (m->status <= CHP_ZAB_FETCH_TOMBSTONE) && m->version < CHP_ZAB_INDEX_MAX;
}

bool
chp_zab_check(const struct chp_message *m, uint32_t value_max)
{
	switch (m->type) {
	case CHP_ZAB_LOOK:
		return check_look(m);
	case CHP_ZAB_NEWEPOCH:
		return check_newepoch(m);
	case CHP_ZAB_ACKEPOCH:
	case CHP_ZAB_PULL:
		return m->len == sizeof(struct chp_zab_ackepoch) &&
		       check_history(&((const struct chp_zab_ackepoch *)(const void *)m)->history);
	case CHP_ZAB_HISTORY:
	case CHP_ZAB_NEWLEADER:
		return check_sync(m);
	case CHP_ZAB_PROPOSE:
		return check_propose(m, value_max);
	case CHP_ZAB_ACKLD:
	case CHP_ZAB_ACK:
	case CHP_ZAB_COMMIT:
		return check_index(m);
	case CHP_ZAB_BEAT:
	case CHP_ZAB_BEAT_ACK:
		return check_beat(m);
	case CHP_ZAB_READ:
	case CHP_ZAB_READ_INDEX:
		return m->len == sizeof(struct chp_zab_read);
	case CHP_ZAB_RECOVER:
		return m->len == sizeof(struct chp_zab_recover);
	case CHP_ZAB_RECOVERED:
		return check_recovered(m);
	case CHP_ZAB_FETCH:
	case CHP_ZAB_OFFER:
		return check_fetch(m);
	case CHP_ZAB_FETCHED:
		return check_fetched(m, value_max);
	default:
		return false;
	}
}

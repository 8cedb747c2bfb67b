/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/bytes.h"
#include "base/random.h"
#include "oplog/oplog.h"
#include "../support/short_memory.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

static struct chp_log
log_of(uint32_t entries, uint32_t blocks, bool mark_follows_commit)
{
	struct chp_log l;

	cr_assert_eq(chp_log_init(&l, entries, blocks, mark_follows_commit, &chp_memory_libc), 0);
	return l;
}

/* Append a short entry of slot `slot`. */
static uint64_t
append(struct chp_log *l, uint32_t slot, uint64_t older, bool open)
{
	struct chp_log_entry e = { .version = l->next, .slot = slot, .key_len = 4, .value_len = 1 };

	return chp_log_append(l, &e, (const uint8_t *)&slot, (const uint8_t *)"v", older, open);
}

static bool
is_committed(const struct chp_log *l, uint64_t pos)
{
	return (chp_log_at(l, pos)->flags & CHP_LOG_COMMITTED) != 0;
}

/* Key, value and zeros up to a multiple of 8, and nothing behind. */
static void
check_record(const struct chp_log *l, const struct chp_log_entry *e, const uint8_t *key, const uint8_t *value)
{
	uint8_t record[CHP_KEY_BYTES_MAX + CHP_VALUE_BYTES_MAX + 16];
	const uint32_t len = e->key_len + e->value_len, padded = chp_align_u32(len, 8);

	memset(record, 0xee, sizeof(record));
	chp_log_record(l, e, record);
	cr_assert_arr_eq(record, key, e->key_len);
	cr_assert_arr_eq(record + e->key_len, value, e->value_len);
	for (uint32_t i = len; i < padded; i++)
		cr_assert_eq(record[i], 0, "%u of %u", i, len);
	cr_assert_eq(record[padded], 0xee);
}

Test(oplog, an_entry_keeps_what_it_was_given)
{
	struct chp_log l = log_of(16, 48, true);
	uint8_t key[CHP_KEY_BYTES_MAX], value[CHP_VALUE_BYTES_MAX], out[CHP_VALUE_BYTES_MAX];
	static const struct {
		uint8_t key_len;
		uint32_t value_len;
		bool external;
	} size[] = {
		{ 1, 0, false },  { 8, 32, false }, { 32, 32, false },   { 32, 33, true },
		{ 64, 0, false }, { 65, 0, true },  { 250, 1024, true }, { 250, 0, true },
		{ 3, 12, false }, { 8, 1, false },  { 60, 3, false },    { 250, 3, true },
	};

	for (uint32_t i = 0; i < sizeof(key); i++)
		key[i] = (uint8_t)(i + 1);
	for (uint32_t i = 0; i < sizeof(value); i++)
		value[i] = (uint8_t)(i * 5);
	for (uint32_t i = 0; i < CHP_ARRAY_LEN(size); i++) {
		struct chp_log_entry e = {
			.version = 10 + i,
			.base = 20 + i,
			.session = 30 + i,
			.request = 40 + i,
			.number = 50 + i,
			.slot = 60 + i,
			.key_len = size[i].key_len,
			.value_len = size[i].value_len,
			.version_flags = (uint8_t)i,
			/* Not the caller's to say. */
			.older = 12345,
			.flags = 0xff,
			.block = 7,
		};
		uint64_t pos = chp_log_append(&l, &e, key, value, CHP_LOG_NONE, i % 2 == 1);
		const struct chp_log_entry *at = chp_log_at(&l, pos);

		cr_assert_eq(pos, i + 1, "positions count from 1");
		cr_assert(at->version == 10 + i && at->base == 20 + i && at->session == 30 + i);
		cr_assert(at->request == 40 + i && at->number == 50 + i && at->slot == 60 + i);
		cr_assert_eq(at->version_flags, i);
		cr_assert_eq(at->older, CHP_LOG_NONE);
		cr_assert_eq(at->flags, (i % 2 == 1 ? CHP_LOG_OPEN : 0u) |
						(size[i].external ? CHP_LOG_EXTERNAL : 0u));
		chp_log_key(&l, at, out);
		cr_assert_arr_eq(out, key, size[i].key_len);
		chp_log_value(&l, at, out);
		cr_assert_arr_eq(out, value, size[i].value_len);
		check_record(&l, at, key, value);
	}
	cr_assert_eq(chp_log_room(&l), 4);
	chp_log_check(&l);
	chp_log_fini(&l, &chp_memory_libc);
}

Test(oplog, without_a_host_committed_entries_leave)
{
	struct chp_log l = log_of(8, 0, true);

	for (uint32_t i = 1; i <= 4; i++)
		cr_assert_eq(append(&l, i, CHP_LOG_NONE, false), i);
	cr_assert_eq(chp_log_compact(&l, 100), 0);
	chp_log_commit(&l, 2);
	cr_assert_eq(chp_log_compact(&l, 100), 0, "the first is not committed");
	chp_log_commit(&l, 1);
	cr_assert_eq(chp_log_compact(&l, 1), 1, "one call is bounded");
	cr_assert_eq(chp_log_compact(&l, 100), 1);
	cr_assert_eq(l.head, 3);
	chp_log_commit(&l, 1); /* gone: nothing to do */
	chp_log_commit(&l, CHP_LOG_NONE);
	chp_log_check(&l);
	chp_log_commit(&l, 4);
	chp_log_commit(&l, 3);
	cr_assert_eq(chp_log_compact(&l, 100), 2);
	cr_assert_eq(chp_log_compact(&l, 100), 0, "empty");
	cr_assert_eq(chp_log_room(&l), 8);
	chp_log_check(&l);
	chp_log_fini(&l, &chp_memory_libc);
}

Test(oplog, with_a_host_the_mark_holds_entries)
{
	struct chp_log l = log_of(8, 0, false);

	for (uint32_t i = 1; i <= 4; i++) {
		append(&l, i, CHP_LOG_NONE, false);
		chp_log_commit(&l, i);
	}
	cr_assert_eq(chp_log_compact(&l, 100), 0);
	chp_log_set_mark(&l, 3);
	chp_log_set_mark(&l, 2); /* an older report, late */
	chp_log_check(&l);
	cr_assert_eq(chp_log_compact(&l, 100), 2, "positions below 3");
	cr_assert_eq(l.head, 3);
	chp_log_set_mark(&l, 5);
	cr_assert_eq(chp_log_compact(&l, 100), 2);
	/* Durable but not committed: level `log` fsyncs before that. */
	append(&l, 5, CHP_LOG_NONE, false);
	chp_log_set_mark(&l, 6);
	cr_assert_eq(chp_log_compact(&l, 100), 0);
	chp_log_commit(&l, 5);
	cr_assert_eq(chp_log_compact(&l, 100), 1);
	chp_log_check(&l);
	chp_log_fini(&l, &chp_memory_libc);
}

Test(oplog, an_open_entry_stays_until_closed)
{
	struct chp_log l = log_of(4, 0, true);
	uint64_t a = append(&l, 1, CHP_LOG_NONE, true);
	uint64_t b = append(&l, 2, CHP_LOG_NONE, false);

	chp_log_commit(&l, a);
	chp_log_commit(&l, b);
	cr_assert_eq(chp_log_compact(&l, 100), 0);
	cr_assert_eq(chp_log_at(&l, a)->version, 1);
	chp_log_close(&l, a);
	cr_assert_eq(chp_log_compact(&l, 100), 2);

	a = append(&l, 1, CHP_LOG_NONE, true);
	chp_log_close(&l, a);
	cr_assert_eq(chp_log_compact(&l, 100), 0, "closed, but not committed");
	chp_log_commit(&l, a);
	cr_assert_eq(chp_log_compact(&l, 100), 1);
	chp_log_check(&l);
	chp_log_fini(&l, &chp_memory_libc);
}

Test(oplog, a_commit_takes_the_older_entries_of_its_key)
{
	struct chp_log l = log_of(8, 0, true);
	uint64_t a1 = append(&l, 1, CHP_LOG_NONE, false);
	uint64_t b1 = append(&l, 2, CHP_LOG_NONE, false);
	uint64_t a2 = append(&l, 1, a1, true);
	uint64_t a3 = append(&l, 1, a2, false);
	uint64_t a4 = append(&l, 1, a3, false);

	chp_log_commit(&l, a3);
	cr_assert(is_committed(&l, a1) && is_committed(&l, a2) && is_committed(&l, a3));
	cr_assert_not(is_committed(&l, b1));
	cr_assert_not(is_committed(&l, a4), "newer than what became Valid");
	cr_assert_eq(chp_log_compact(&l, 100), 1, "a1; b1 is not committed");
	chp_log_commit(&l, b1);
	cr_assert_eq(chp_log_compact(&l, 100), 1, "b1; a2 is open");
	chp_log_close(&l, a2);
	cr_assert_eq(chp_log_compact(&l, 100), 2, "a2 and a3");
	/* a4's older entry is gone by now. */
	chp_log_check(&l);
	chp_log_commit(&l, a4);
	cr_assert_eq(chp_log_compact(&l, 100), 1);
	chp_log_fini(&l, &chp_memory_libc);
}

/* The place of an old position holds a new entry, which an `older` that is gone must not commit. */
Test(oplog, an_older_position_that_is_gone_is_not_its_successor)
{
	struct chp_log l = log_of(2, 0, true);
	uint64_t a1 = append(&l, 1, CHP_LOG_NONE, false);
	uint64_t a2 = append(&l, 1, a1, false);

	chp_log_commit(&l, a1);
	cr_assert_eq(chp_log_compact(&l, 100), 1);
	uint64_t b = append(&l, 2, CHP_LOG_NONE, false);

	cr_assert_eq(b & l.mask, a1 & l.mask);
	chp_log_commit(&l, a2);
	cr_assert(is_committed(&l, a2));
	cr_assert_not(is_committed(&l, b));
	chp_log_fini(&l, &chp_memory_libc);
}

Test(oplog, room_is_bound_by_entries_and_by_blocks)
{
	struct chp_log l = log_of(4, 3 * CHP_RECORD_BLOCKS_MAX, true);
	uint8_t bytes[CHP_RECORD_BYTES_MAX] = { 0 };
	struct chp_log_entry large = { .key_len = 250, .value_len = 1024 };
	struct chp_log_entry middle = { .key_len = 4, .value_len = 61 };

	cr_assert_eq(chp_log_room(&l), 4);
	cr_assert_eq(chp_log_room_records(&l), 3);
	chp_log_append(&l, &middle, bytes, bytes, CHP_LOG_NONE, false);
	cr_assert_eq(chp_log_room_records(&l), 2, "32 blocks are left");
	chp_log_append(&l, &large, bytes, bytes, CHP_LOG_NONE, false);
	chp_log_append(&l, &large, bytes, bytes, CHP_LOG_NONE, false);
	cr_assert_eq(chp_log_room(&l), 1);
	cr_assert_eq(chp_log_room_records(&l), 0);
	append(&l, 1, CHP_LOG_NONE, false);
	cr_assert_eq(chp_log_room(&l), 0);
	chp_log_check(&l);
	for (uint64_t pos = 1; pos <= 4; pos++)
		chp_log_commit(&l, pos);
	cr_assert_eq(chp_log_compact(&l, 100), 4);
	cr_assert_eq(chp_log_room_records(&l), 3, "the blocks are free again");
	for (uint32_t i = 0; i < 4; i++)
		append(&l, 1, CHP_LOG_NONE, false);
	cr_assert_eq(chp_log_room_records(&l), 0, "blocks, but no entries");
	chp_log_check(&l);
	chp_log_fini(&l, &chp_memory_libc);
}

#define MODEL_KEYS 12u

struct model_entry {
	uint64_t version;
	uint32_t key, value_len;
	bool committed, open;
};

/* What a log of any length would hold, by position; head moves as the log's must. */
struct model {
	struct model_entry *entry;
	uint64_t head, next, mark;
	uint64_t newest[MODEL_KEYS]; /* uncommitted */
	struct chp_random random;
	bool mark_follows_commit;
};

static uint8_t
model_byte(const struct model_entry *e, uint32_t i)
{
	return (uint8_t)(e->version * 31 + i * 7 + e->key);
}

static void
model_append(struct model *m, struct chp_log *l)
{
	uint8_t key[CHP_KEY_BYTES_MAX], value[CHP_VALUE_BYTES_MAX];
	struct model_entry *e = &m->entry[m->next];

	*e = (struct model_entry){
		.version = m->next * 3,
		.key = (uint32_t)chp_random_below(&m->random, MODEL_KEYS),
		.open = chp_random_chance(&m->random, 300000),
	};
	e->value_len = (uint32_t)chp_random_below(&m->random, e->key % 2 ? 60 : 1025);
	struct chp_log_entry given = {
		.version = e->version,
		.slot = e->key,
		.key_len = (uint8_t)(1 + e->key * 22),
		.value_len = e->value_len,
	};

	memset(key, (int)e->key, sizeof(key));
	for (uint32_t i = 0; i < e->value_len; i++)
		value[i] = model_byte(e, i);
	cr_assert_eq(chp_log_append(l, &given, key, value, m->newest[e->key], e->open), m->next);
	m->newest[e->key] = m->next++;
}

/* A key becomes Valid at its newest version, or at one before it. */
static void
model_commit(struct model *m, struct chp_log *l)
{
	uint32_t key = (uint32_t)chp_random_below(&m->random, MODEL_KEYS);
	uint64_t pos = m->newest[key];

	if (pos != CHP_LOG_NONE && chp_random_chance(&m->random, 300000))
		pos = m->head + chp_random_below(&m->random, pos - m->head + 1);
	for (; pos > m->head && (m->entry[pos].key != key || m->entry[pos].committed); pos--)
		;
	if (pos == CHP_LOG_NONE || m->entry[pos].key != key)
		return;
	chp_log_commit(l, pos);
	if (m->newest[key] <= pos)
		m->newest[key] = CHP_LOG_NONE;
	for (; pos >= m->head; pos--)
		m->entry[pos].committed |= m->entry[pos].key == key;
}

static void
model_compact(struct model *m, struct chp_log *l)
{
	uint32_t max = (uint32_t)chp_random_below(&m->random, 10);
	uint32_t want = 0;

	while (want < max && m->head < m->next && m->next - m->head > l->keep_entries &&
	       m->entry[m->head].committed && !m->entry[m->head].open &&
	       (m->mark_follows_commit || m->head < m->mark)) {
		m->head++;
		want++;
	}
	cr_assert_eq(chp_log_compact(l, max), want);
}

static void
model_expect(const struct model *m, const struct chp_log *l)
{
	uint64_t unsettled = 0;
	uint8_t key[CHP_KEY_BYTES_MAX], value[CHP_VALUE_BYTES_MAX];

	cr_assert_eq(l->head, m->head);
	cr_assert_eq(l->next, m->next);
	for (uint64_t pos = m->head; pos < m->next; pos++)
		unsettled += !m->entry[pos].committed || m->entry[pos].open;
	cr_assert_eq(chp_log_unsettled(l), unsettled);
	for (uint64_t pos = m->head; pos < m->next; pos++) {
		const struct model_entry *e = &m->entry[pos];
		const struct chp_log_entry *at = chp_log_at(l, pos);

		cr_assert_eq(at->version, e->version);
		cr_assert_eq(at->value_len, e->value_len);
		cr_assert_eq((at->flags & CHP_LOG_COMMITTED) != 0, e->committed);
		cr_assert_eq((at->flags & CHP_LOG_OPEN) != 0, e->open);
		chp_log_key(l, at, key);
		for (uint32_t i = 0; i < at->key_len; i++)
			cr_assert_eq(key[i], e->key);
		chp_log_value(l, at, value);
		for (uint32_t i = 0; i < e->value_len; i++)
			cr_assert_eq(value[i], model_byte(e, i));
	}
	chp_log_check(l);
}

static void
model_step(struct model *m, struct chp_log *l)
{
	switch (chp_random_below(&m->random, 8)) {
	case 0:
	case 1:
	case 2:
		if (chp_log_room_records(l) > 0)
			model_append(m, l);
		break;
	case 3:
	case 4:
		model_commit(m, l);
		break;
	case 5:
		for (uint64_t pos = m->head; pos < m->next; pos++) {
			if (!m->entry[pos].open || chp_random_chance(&m->random, 500000))
				continue;
			chp_log_close(l, pos);
			m->entry[pos].open = false;
		}
		break;
	case 6:
		m->mark = chp_max_u64(m->mark, chp_random_range(&m->random, m->head, m->next));
		chp_log_set_mark(l, m->mark);
		break;
	default:
		model_compact(m, l);
	}
}

Test(oplog, agrees_with_a_list)
{
	enum { STEPS = 4000 };

	for (uint64_t seed = 1; seed <= 8; seed++) {
		struct model m = {
			.entry = calloc(STEPS + 2, sizeof(*m.entry)),
			.head = 1,
			.next = 1,
			.mark = 1,
			.random = { seed },
			.mark_follows_commit = seed % 2 == 0,
		};
		struct chp_log l = log_of(32, 150, m.mark_follows_commit);
		uint32_t full = 0;

		chp_log_keep(&l, seed > 4 ? (uint32_t)(4 * (seed - 4)) : 0, UINT32_MAX);
		cr_assert_not_null(m.entry);
		for (uint32_t step = 0; step < STEPS; step++) {
			model_step(&m, &l);
			full += chp_log_room_records(&l) == 0;
			if (step % 16 == 0)
				model_expect(&m, &l);
		}
		model_expect(&m, &l);
		cr_assert_gt(m.head, 33, "the ring never wrapped");
		cr_assert_gt(full, 0, "the log was never full");
		free(m.entry);
		chp_log_fini(&l, &chp_memory_libc);
	}
}

/* ------------------------------------------------------------------ logs that are the same everywhere */

/* Append an entry of epoch `base`, of `bytes` of value. */
static uint64_t
append_of(struct chp_log *l, uint64_t base, uint32_t bytes)
{
	static const uint8_t value[CHP_VALUE_BYTES_MAX];
	struct chp_log_entry e = { .version = l->next, .base = base, .key_len = 0, .value_len = bytes, .status = 3 };

	return chp_log_append(l, &e, NULL, value, CHP_LOG_NONE, false);
}

Test(oplog, an_entry_without_a_key_keeps_its_status)
{
	struct chp_log l = log_of(8, 44, true);
	uint8_t out[CHP_VALUE_BYTES_MAX];

	for (uint32_t bytes = 0; bytes <= CHP_VALUE_BYTES_MAX; bytes += CHP_VALUE_BYTES_MAX / 2) {
		const struct chp_log_entry *e = chp_log_at(&l, append_of(&l, 1, bytes));

		cr_assert_eq(e->status, 3);
		cr_assert_eq(e->key_len, 0);
		cr_assert_eq(e->value_len, bytes);
		chp_log_key(&l, e, out);
		chp_log_value(&l, e, out);
	}
	chp_log_check(&l);
	chp_log_fini(&l, &chp_memory_libc);
}

Test(oplog, unsettled_is_what_is_not_committed_or_open)
{
	struct chp_log l = log_of(8, 0, true);

	append(&l, 1, CHP_LOG_NONE, true);
	append(&l, 1, 1, false);
	append(&l, 2, CHP_LOG_NONE, true);
	cr_assert_eq(chp_log_unsettled(&l), 3);
	chp_log_commit(&l, 2);
	cr_assert_eq(chp_log_unsettled(&l), 2, "the first is still open");
	chp_log_commit(&l, 2);
	cr_assert_eq(chp_log_unsettled(&l), 2);
	chp_log_close(&l, 1);
	cr_assert_eq(chp_log_unsettled(&l), 1);
	chp_log_close(&l, 3);
	cr_assert_eq(chp_log_unsettled(&l), 1, "not committed");
	chp_log_commit(&l, 3);
	cr_assert_eq(chp_log_unsettled(&l), 0);
	cr_assert_eq(chp_log_compact(&l, 8), 3);
	cr_assert_eq(chp_log_unsettled(&l), 0);
	chp_log_check(&l);
	chp_log_fini(&l, &chp_memory_libc);
}

Test(oplog, the_newest_entries_are_kept)
{
	struct chp_log l = log_of(8, 0, true);

	chp_log_keep(&l, 4, 0);
	for (uint64_t pos = 1; pos <= 3; pos++)
		chp_log_commit(&l, append_of(&l, 10 + pos, 0));
	cr_assert_eq(chp_log_compact(&l, 8), 0);
	append_of(&l, 14, 0);
	cr_assert_eq(chp_log_compact(&l, 8), 0, "four");
	append_of(&l, 15, 0);
	append_of(&l, 16, 0);
	cr_assert_eq(chp_log_compact(&l, 1), 1, "six, and one at a time");
	cr_assert_eq(l.base_epoch, 11);
	cr_assert_eq(chp_log_compact(&l, 8), 1);
	cr_assert_eq(l.head, 3);
	cr_assert_eq(l.base_epoch, 12);
	for (uint64_t pos = 0; pos < 3; pos++)
		append_of(&l, 17, 0);
	cr_assert_eq(chp_log_compact(&l, 8), 1, "what is not committed is no reason to keep more of what is");
	cr_assert_eq(l.head, 4);
	cr_assert_eq(chp_log_unsettled(&l), 6);
	chp_log_keep(&l, 0, 0);
	for (uint64_t pos = 4; pos < l.next; pos++)
		chp_log_commit(&l, pos);
	cr_assert_eq(chp_log_compact(&l, 8), 6);
	cr_assert_eq(l.base_epoch, 17);
	chp_log_check(&l);
	chp_log_fini(&l, &chp_memory_libc);
}

Test(oplog, entries_are_kept_while_blocks_last)
{
	const uint32_t each = chp_blocks_for(CHP_VALUE_BYTES_MAX);
	struct chp_log l = log_of(8, 6 * each, true);

	chp_log_keep(&l, 8, 3 * each);
	for (uint32_t i = 0; i < 5; i++)
		chp_log_commit(&l, append_of(&l, i, CHP_VALUE_BYTES_MAX));
	cr_assert_eq(chp_log_compact(&l, 8), 2);
	cr_assert_eq(l.head, 3);
	cr_assert_eq(l.blocks.n_free, 3 * each);
	chp_log_check(&l);
	chp_log_fini(&l, &chp_memory_libc);
}

Test(oplog, what_no_leader_kept_is_cut_off)
{
	struct chp_log l = log_of(8, 100, true);
	uint32_t used;

	chp_log_keep(&l, 8, 100);
	chp_log_commit(&l, append_of(&l, 1, 500));
	used = l.blocks.n_free;
	append_of(&l, 1, 500);
	append_of(&l, 2, 10);
	append_of(&l, 2, 700);
	chp_log_truncate(&l, 5);
	cr_assert_eq(l.next, 5, "nothing is behind the end");
	chp_log_truncate(&l, 2);
	cr_assert_eq(l.next, 2);
	cr_assert_eq(chp_log_unsettled(&l), 0);
	cr_assert_eq(l.blocks.n_free, used);
	chp_log_check(&l);
	cr_assert_eq(append_of(&l, 3, 700), 2, "the position is used again");
	cr_assert_eq(chp_log_at(&l, 2)->base, 3);
	chp_log_check(&l);
	chp_log_fini(&l, &chp_memory_libc);
}

Test(oplog, a_cut_takes_the_mark_with_it)
{
	struct chp_log l = log_of(8, 0, false);

	for (uint32_t i = 0; i < 3; i++)
		append_of(&l, 1, 0);
	chp_log_set_mark(&l, 4);
	chp_log_truncate(&l, 2);
	cr_assert_eq(l.mark, 2);
	append_of(&l, 2, 0);
	chp_log_commit(&l, 1);
	chp_log_commit(&l, 2);
	cr_assert_eq(chp_log_compact(&l, 8), 1, "the new entry is not durable yet");
	chp_log_check(&l);
	chp_log_fini(&l, &chp_memory_libc);
}

Test(oplog, it_begins_anew_behind_a_copy)
{
	struct chp_log l = log_of(8, 100, true);

	chp_log_keep(&l, 4, 100);
	chp_log_commit(&l, append_of(&l, 1, 500));
	append_of(&l, 1, 500);
	chp_log_restart(&l, 1000, 7);
	cr_assert_eq(l.head, 1000);
	cr_assert_eq(l.next, 1000);
	cr_assert_eq(l.base_epoch, 7);
	cr_assert_eq(chp_log_unsettled(&l), 0);
	cr_assert_eq(l.blocks.n_free, 100);
	cr_assert_eq(chp_log_room(&l), 8);
	chp_log_check(&l);
	for (uint64_t pos = 1000; pos < 1008; pos++) {
		cr_assert_eq(append_of(&l, 8, 0), pos);
		chp_log_commit(&l, pos);
	}
	cr_assert_eq(chp_log_compact(&l, 8), 4);
	cr_assert_eq(l.base_epoch, 8);
	chp_log_restart(&l, 1, 0); /* back as well */
	cr_assert_eq(append_of(&l, 1, 0), 1);
	chp_log_check(&l);
	chp_log_fini(&l, &chp_memory_libc);
}

Test(oplog, cutting_off_what_is_committed_asserts, .signal = SIGABRT)
{
	struct chp_log l = log_of(4, 0, true);

	append_of(&l, 1, 0);
	chp_log_commit(&l, append_of(&l, 1, 0));
	chp_log_truncate(&l, 1);
}

Test(oplog, cutting_off_before_the_head_asserts, .signal = SIGABRT)
{
	struct chp_log l = log_of(4, 0, true);

	chp_log_restart(&l, 10, 1);
	chp_log_truncate(&l, 9);
}

Test(oplog, too_little_memory_is_an_error)
{
	struct chp_log l;

	for (int enough = 0; enough < 2; enough++) {
		short_memory_left = enough;
		cr_assert_eq(chp_log_init(&l, 16, 16, true, &short_memory), -ENOMEM);
		cr_assert_eq(short_memory_held, 0);
	}
	short_memory_left = 2;
	cr_assert_eq(chp_log_init(&l, 16, 16, true, &short_memory), 0);
	chp_log_fini(&l, &short_memory);
	chp_log_fini(&l, &short_memory);
	cr_assert_eq(short_memory_held, 0);
}

Test(oplog, a_full_log_asserts, .signal = SIGABRT)
{
	struct chp_log l = log_of(2, 0, true);

	for (uint32_t i = 0; i < 3; i++)
		append(&l, i, CHP_LOG_NONE, false);
}

Test(oplog, a_position_not_in_the_log_asserts, .signal = SIGABRT)
{
	struct chp_log l = log_of(2, 0, true);

	append(&l, 1, CHP_LOG_NONE, false);
	chp_log_commit(&l, 1);
	chp_log_compact(&l, 1);
	chp_log_at(&l, 1);
}

Test(oplog, closing_twice_asserts, .signal = SIGABRT)
{
	struct chp_log l = log_of(2, 0, true);
	uint64_t pos = append(&l, 1, CHP_LOG_NONE, true);

	chp_log_close(&l, pos);
	chp_log_close(&l, pos);
}

Test(oplog, a_mark_of_the_future_asserts, .signal = SIGABRT)
{
	struct chp_log l = log_of(2, 0, false);

	append(&l, 1, CHP_LOG_NONE, false);
	chp_log_set_mark(&l, 3);
}

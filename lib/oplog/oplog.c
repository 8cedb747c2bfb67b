/* SPDX-License-Identifier: BSD-3-Clause */
#include "oplog/oplog.h"

#include <errno.h>

/* Entries are appended and dropped one after the other, each long out of the caches: this many ahead are fetched. */
#define AHEAD 8u

int
chp_log_init(struct chp_log *l, uint32_t entries, uint32_t blocks, bool mark_follows_commit,
	     const struct chp_memory *memory)
{
	CHP_ASSERT(chp_is_pow2(entries));
	CHP_ASSERT_OP(entries, <=, CHP_LOG_ENTRIES_MAX);
	*l = (struct chp_log){
		.head = 1,
		.next = 1,
		.mark = 1,
		.mask = entries - 1,
		.mark_follows_commit = mark_follows_commit,
	};
	int err = chp_blocks_init(&l->blocks, blocks, memory);

	if (err == 0) {
		l->entry = memory->zalloc(entries * sizeof(*l->entry));
		err = l->entry == NULL ? -ENOMEM : 0;
	}
	if (err != 0)
		chp_log_fini(l, memory);
	return err;
}

void
chp_log_fini(struct chp_log *l, const struct chp_memory *memory)
{
	chp_blocks_fini(&l->blocks, memory);
	memory->free(l->entry);
	*l = (struct chp_log){ .blocks.free = CHP_BLOCK_NONE };
}

uint32_t
chp_log_room_records(const struct chp_log *l)
{
	return chp_min_u32(chp_log_room(l), l->blocks.n_free / CHP_RECORD_BLOCKS_MAX);
}

uint32_t
chp_log_room_until(const struct chp_log *l, uint32_t percent)
{
	const uint64_t entries = (l->mask + UINT64_C(1)) * percent / 100, used = l->next - l->head;
	const uint64_t blocks = (uint64_t)l->blocks.n * percent / 100, used_blocks = l->blocks.n - l->blocks.n_free;

	if (used >= entries || used_blocks >= blocks)
		return 0;
	return (uint32_t)chp_min_u64(entries - used, (blocks - used_blocks) / CHP_RECORD_BLOCKS_MAX);
}

uint32_t
chp_log_fill_ppm(const struct chp_log *l)
{
	const uint64_t entries = (l->next - l->head) * 1000000u / (l->mask + UINT64_C(1));
	const uint64_t used = l->blocks.n - l->blocks.n_free;

	return (uint32_t)chp_max_u64(entries, l->blocks.n == 0 ? 0 : used * 1000000u / l->blocks.n);
}

uint64_t
chp_log_append(struct chp_log *l, const struct chp_log_entry *e, const uint8_t *key,
	       const uint8_t *value, uint64_t older, bool open)
{
	uint64_t pos = l->next;

	CHP_ASSERT_OP(chp_log_room(l), >, 0u);
	CHP_ASSERT_OP(e->key_len, <=, CHP_KEY_BYTES_MAX);
	CHP_ASSERT_OP(e->value_len, <=, CHP_VALUE_BYTES_MAX);
	CHP_ASSERT_OP(older, <, pos);
	struct chp_log_entry *to = &l->entry[pos & l->mask];

	chp_prefetch(&l->entry[(pos + AHEAD) & l->mask]);
	chp_prefetch(l->entry[(pos + AHEAD) & l->mask].data);
	*to = (struct chp_log_entry){
		.version = e->version,
		.base = e->base,
		.session = e->session,
		.request = e->request,
		.number = e->number,
		.older = older,
		.slot = e->slot,
		.value_len = e->value_len,
		.block = CHP_BLOCK_NONE,
		.key_len = e->key_len,
		.flags = open ? CHP_LOG_OPEN : 0,
		.version_flags = e->version_flags,
		.status = e->status,
	};
	if (e->key_len + e->value_len <= CHP_LOG_INLINE) {
		if (e->key_len > 0)
			memcpy(to->data, key, e->key_len);
		if (e->value_len > 0)
			memcpy(to->data + e->key_len, value, e->value_len);
	} else {
		to->flags |= CHP_LOG_EXTERNAL;
		to->block = chp_blocks_put(&l->blocks, key, e->key_len, value, e->value_len);
	}
	l->next++;
	l->unsettled++;
	return pos;
}

void
chp_log_key(const struct chp_log *l, const struct chp_log_entry *e, uint8_t *to)
{
	if (e->flags & CHP_LOG_EXTERNAL)
		chp_blocks_get(&l->blocks, e->block, 0, to, e->key_len);
	else
		memcpy(to, e->data, e->key_len);
}

void
chp_log_value(const struct chp_log *l, const struct chp_log_entry *e, uint8_t *to)
{
	if (e->flags & CHP_LOG_EXTERNAL)
		chp_blocks_get(&l->blocks, e->block, e->key_len, to, e->value_len);
	else if (e->value_len > 0)
		memcpy(to, e->data + e->key_len, e->value_len);
}

void
chp_log_commit(struct chp_log *l, uint64_t pos)
{
	/*
	 * A committed entry's older ones are committed too, and what is no longer in the log was:
	 * both end the walk. Each entry is committed once, so all walks cost one visit an entry.
	 */
	while (pos != CHP_LOG_NONE && pos >= l->head) {
		struct chp_log_entry *e = chp_log_at(l, pos);

		if (e->flags & CHP_LOG_COMMITTED)
			break;
		e->flags |= CHP_LOG_COMMITTED;
		l->unsettled -= (e->flags & CHP_LOG_OPEN) == 0;
		CHP_ASSERT_OP(e->older, <, pos);
		pos = e->older;
	}
}

void
chp_log_close(struct chp_log *l, uint64_t pos)
{
	struct chp_log_entry *e = chp_log_at(l, pos);

	CHP_ASSERT(e->flags & CHP_LOG_OPEN);
	e->flags &= (uint8_t)~CHP_LOG_OPEN;
	l->unsettled -= (e->flags & CHP_LOG_COMMITTED) != 0;
}

void
chp_log_set_mark(struct chp_log *l, uint64_t mark)
{
	/* Durable before it was written: that host has another log in mind. */
	CHP_ASSERT_OP(mark, <=, l->next);
	l->mark = chp_max_u64(l->mark, mark);
}

void
chp_log_keep(struct chp_log *l, uint32_t entries, uint32_t blocks)
{
	l->keep_entries = entries;
	l->keep_blocks = blocks;
}

static void
free_blocks(struct chp_log *l, const struct chp_log_entry *e)
{
	if ((e->flags & CHP_LOG_EXTERNAL) != 0)
		chp_blocks_free(&l->blocks, e->block);
}

void
chp_log_truncate(struct chp_log *l, uint64_t next)
{
	CHP_ASSERT_OP(next, >=, l->head);
	while (l->next > next) {
		const struct chp_log_entry *e = chp_log_at(l, l->next - 1);

		CHP_ASSERT((e->flags & CHP_LOG_COMMITTED) == 0);
		free_blocks(l, e);
		l->next--;
		l->unsettled--;
	}
	l->mark = chp_min_u64(l->mark, l->next);
}

void
chp_log_restart(struct chp_log *l, uint64_t next, uint64_t base)
{
	CHP_ASSERT_OP(next, >=, 1u);
	for (uint64_t pos = l->head; pos < l->next; pos++)
		free_blocks(l, &l->entry[pos & l->mask]);
	l->head = l->next = l->mark = next;
	l->base_epoch = base;
	l->unsettled = 0;
}

/* What dropping the entries behind pos will touch: the lines with their flags, and blocks. */
static void
prefetch_behind(const struct chp_log *l, uint64_t pos)
{
	const struct chp_log_entry *near = &l->entry[(pos + AHEAD / 2) & l->mask];

	chp_prefetch(&l->entry[(pos + AHEAD) & l->mask].flags);
	if (pos + AHEAD / 2 < l->next && (near->flags & CHP_LOG_EXTERNAL) != 0)
		chp_blocks_prefetch(&l->blocks, near->block);
}

/* Whether the entry at pos, the head, may leave. */
static bool
may_leave(const struct chp_log *l, uint64_t pos)
{
	uint8_t flags = l->entry[pos & l->mask].flags;

	if (l->next - pos <= l->keep_entries && l->blocks.n - l->blocks.n_free <= l->keep_blocks)
		return false;
	return (flags & (CHP_LOG_COMMITTED | CHP_LOG_OPEN)) == CHP_LOG_COMMITTED &&
	       (l->mark_follows_commit || pos < l->mark);
}

uint32_t
chp_log_compact(struct chp_log *l, uint32_t max)
{
	uint32_t dropped = 0;

	while (dropped < max && l->head < l->next && may_leave(l, l->head)) {
		struct chp_log_entry *e = &l->entry[l->head & l->mask];

		prefetch_behind(l, l->head);
		free_blocks(l, e);
		l->base_epoch = e->base;
		l->head++;
		dropped++;
	}
	l->mark = chp_max_u64(l->mark, l->head);
	return dropped;
}

/* Assert one entry; returns its blocks. */
static uint32_t
check_entry(const struct chp_log *l, uint64_t pos)
{
	const struct chp_log_entry *e = chp_log_at(l, pos);
	uint32_t bytes = e->key_len + e->value_len;
	bool external = (e->flags & CHP_LOG_EXTERNAL) != 0;

	CHP_ASSERT_OP(e->key_len, <=, CHP_KEY_BYTES_MAX);
	CHP_ASSERT_OP(e->value_len, <=, CHP_VALUE_BYTES_MAX);
	CHP_ASSERT_OP(e->older, <, pos);
	CHP_ASSERT_OP(external, ==, bytes > CHP_LOG_INLINE);
	if (e->older != CHP_LOG_NONE && e->older >= l->head) {
		const struct chp_log_entry *older = chp_log_at(l, e->older);

		CHP_ASSERT_OP(older->slot, ==, e->slot);
		CHP_ASSERT(!(e->flags & CHP_LOG_COMMITTED) || older->flags & CHP_LOG_COMMITTED);
	}
	if (!external)
		return 0;
	CHP_ASSERT_OP(chp_blocks_length(&l->blocks, e->block), ==, chp_blocks_for(bytes));
	return chp_blocks_for(bytes);
}

void
chp_log_check(const struct chp_log *l)
{
	uint64_t blocks = 0, unsettled = 0;

	CHP_ASSERT_OP(l->head, >=, 1u);
	CHP_ASSERT_OP(l->head, <=, l->next);
	CHP_ASSERT_OP(l->next - l->head, <=, (uint64_t)l->mask + 1);
	CHP_ASSERT_OP(l->mark, >=, l->head);
	CHP_ASSERT_OP(l->mark, <=, l->next);
	for (uint64_t pos = l->head; pos < l->next; pos++) {
		const uint8_t flags = l->entry[pos & l->mask].flags;

		blocks += check_entry(l, pos);
		unsettled += (flags & (CHP_LOG_COMMITTED | CHP_LOG_OPEN)) != CHP_LOG_COMMITTED;
	}
	CHP_ASSERT_OP(unsettled, ==, l->unsettled);
	CHP_ASSERT_OP(blocks, ==, l->blocks.n - l->blocks.n_free);
	chp_blocks_check(&l->blocks);
}

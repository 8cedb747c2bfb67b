/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Three passes over one key at a time:
 *
 *   load      its operations become items, the versions that they name become a sorted table;
 *   witness   the order by version, with reads put where they belong, is verified: n log n;
 *   search    only where that fails: depth first over all orders, remembering configurations.
 *
 * An item is a must (a mutation that took effect), a maybe (a mutation whose outcome is unknown) or
 * a sight (it saw the key's state and changed nothing). Gets of unknown outcome and failures that
 * saw nothing are left out.
 */
#include "history/linear.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX
#define NEVER UINT64_MAX

#define BIND_END UINT32_MAX /* frame.bind: all orphans tried */

#define BLOCK_BYTES ((size_t)1 << 20)
#define MEMO_SLOTS_MIN 1024u
#define MEMO_SLOTS_KEPT 8192u  /* from key to key; all are cleared before each search */
#define MEMO_WORDS_KEPT 65536u /* from key to key */
#define MEMO_HEAD 3u /* words of an entry before its set of maybes: two of hash, the next entry */
#define MAYBES_MAX 4096u   /* that the memory holds bit by bit; beyond it only knows equal sets */
#define MEMO_CHAIN_MAX 64u /* entries compared; stopping early only costs time */
#define DIGITS_BYTES 24u

#define SECOND_SEARCH_PART 8u                /* of states_max */
#define WANTED_PARTS_MAX (UINT64_C(1) << 22) /* comparisons of maybes with orphans */
#define SCAN_MAX 1024u /* looking for a use of a maybe; beyond it is taken to have one */

#define SHOWN_BYTES 32u /* of a key or value in a report */
#define SHOWN_PLACED 8u /* operations before the one that does not fit */
#define SHOWN_OTHERS 6u /* operations at the time of the one that does not fit */

enum role {
	ROLE_MUST,
	ROLE_MAYBE,
	ROLE_SIGHT,
};

enum sight {
	SIGHT_VALUE,
	SIGHT_ABSENT,
	SIGHT_PRESENT,
	SIGHT_OTHER_VERSION, /* present, not at version arg */
	SIGHT_NOT_NUMBER,
};

/* One operation of the key. Times, values and numbers are those of the history. */
struct item {
	uint64_t inv;
	uint64_t ret;     /* NEVER for a maybe */
	uint64_t version; /* written by a must, 0 unknown */
	uint64_t seen;    /* version seen by a sight or expected by a cas, 0 none */
	uint64_t arg;
	uint64_t number;
	uint64_t hash; /* of the value; set for a search */
	const uint8_t *value;
	uint32_t len;
	uint32_t op;     /* in the history */
	uint32_t writes; /* index of its version; NONE: not known */
	uint32_t sees;   /* index of the version seen or expected; NONE */
	uint32_t unlike; /* index of the version that the key did not have; NONE: nobody names it */
	uint32_t next_seer; /* next sight of the same version */
	uint32_t twin;      /* the maybe before that does the same; set for a search */
	uint32_t sources;   /* the orphans that this maybe can have written; set for a search */
	uint32_t wanted; /* the certain item that this maybe seems to explain; set for a search */
	uint8_t kind;
	uint8_t role;
	uint8_t sight;
	bool has_number;
};

/* A version that an item names. */
struct version {
	uint64_t number;
	uint32_t writer; /* the must that wrote it; NONE: it is an orphan, a maybe may have */
	uint32_t
		needed; /* sights and musts that saw it: it has certainly been written if above 0 */
	uint32_t seer;  /* first sight, then item.next_seer */
	uint32_t get;   /* a get of it; NONE */
	bool seen_deep; /* a sight of it says that it was no number */
};

/* The register. The bytes belong to the history, to a frame or to the witness. */
struct state {
	const uint8_t *value;
	uint64_t hash; /* of the value, while searching */
	uint32_t len;
	uint32_t version; /* index; NONE: at first, and a version that nobody names */
	bool exists;
};

/*
 * The value after a mutation: two parts one after the other, so that nothing is copied to compare
 * it.
 */
struct outcome {
	const uint8_t *a;
	const uint8_t *b;
	uint32_t a_len;
	uint32_t b_len;
	bool exists;
	char digits[DIGITS_BYTES];
};

struct block {
	struct block *next;
	size_t cap;
	size_t used;
	_Alignas(16) uint8_t bytes[];
};

/* All that is needed to judge one key; reused from key to key. */
struct work {
	const struct chp_history *h;
	struct block *block; /* arrays of this key, see work_take */

	struct item *item;       /* by invocation */
	struct version *version; /* by number */
	uint32_t *maybe;         /* items, by invocation */
	uint32_t *chain;         /* versions that were certainly written, in order */
	uint32_t n;
	uint32_t n_versions;
	uint32_t n_maybe;
	uint32_t n_chain;
	uint32_t n_unversioned; /* musts without a version */
	uint32_t n_loose_gets;  /* gets of a value without a version */
	uint32_t n_deep;        /* sights without a version that tell something of the value */
	uint32_t twice[2];      /* two musts with the same version, or NONE */

	uint8_t *buf; /* the witness's value */
	size_t buf_cap;

	/* Configurations visited, see memo_add. */
	uint64_t *memo;
	uint32_t *memo_slot;
	size_t memo_words; /* room in memo */
	size_t memo_slots;
};

/* --- memory ----------------------------------------------------------------------------------- */

/* n items of `size` bytes for as long as this key is judged, zeroed; NULL: no memory. */
static void *
work_take(struct work *w, size_t n, size_t size)
{
	size_t len = (n * size + 15) & ~(size_t)15;
	struct block *b = w->block;
	void *p;

	if (b == NULL || b->cap - b->used < len) {
		size_t cap = len > BLOCK_BYTES ? len : BLOCK_BYTES;

		b = malloc(sizeof(*b) + cap);
		if (b == NULL)
			return NULL;
		b->next = w->block;
		b->cap = cap;
		b->used = 0;
		w->block = b;
	}
	p = b->bytes + b->used;
	b->used += len;
	memset(p, 0, len);
	return p;
}

/* Start the next key: keep one block of the usual size. */
static void
work_reset(struct work *w)
{
	struct block *kept = NULL;

	while (w->block != NULL) {
		struct block *b = w->block;

		w->block = b->next;
		if (kept == NULL && b->cap == BLOCK_BYTES)
			kept = b;
		else
			free(b);
	}
	if (kept != NULL) {
		kept->next = NULL;
		kept->used = 0;
	}
	w->block = kept;
}

static void
work_fini(struct work *w)
{
	work_reset(w);
	free(w->block);
	free(w->buf);
	free(w->memo);
	free(w->memo_slot);
}

/* --- the register ----------------------------------------------------------------------------- */

static bool
parse_number(const uint8_t *p, uint32_t len, uint64_t *out)
{
	uint64_t v = 0;

	if (len == 0 || len > 20)
		return false;
	for (uint32_t i = 0; i < len; i++) {
		uint64_t d = (uint64_t)p[i] - '0';

		if (p[i] < '0' || p[i] > '9' || v > (UINT64_MAX - d) / 10)
			return false;
		v = v * 10 + d;
	}
	*out = v;
	return true;
}

static bool
state_is_number(const struct state *s)
{
	uint64_t v;

	return s->exists && parse_number(s->value, s->len, &v);
}

/* Fill in what a mutation does to a state; false if it would have had another outcome. */
static bool
mutate(const struct state *s, const struct item *it, struct outcome *o)
{
	uint64_t v;

	o->exists = it->kind != CHP_HISTORY_DELETE;
	o->a = it->value;
	o->a_len = it->len;
	o->b = NULL;
	o->b_len = 0;
	switch (it->kind) {
	case CHP_HISTORY_PUT:
		return true;
	case CHP_HISTORY_ADD:
		return !s->exists;
	case CHP_HISTORY_DELETE:
	case CHP_HISTORY_REPLACE:
		return s->exists;
	case CHP_HISTORY_CAS:
		return s->exists && it->sees != NONE && s->version == it->sees;
	case CHP_HISTORY_APPEND:
		o->a = s->value;
		o->a_len = s->len;
		o->b = it->value;
		o->b_len = it->len;
		return s->exists;
	case CHP_HISTORY_PREPEND:
		o->b = s->value;
		o->b_len = s->len;
		return s->exists;
	default:
		break;
	}
	assert(it->kind == CHP_HISTORY_INCR || it->kind == CHP_HISTORY_DECR);
	if (!s->exists || !parse_number(s->value, s->len, &v))
		return false;
	v = it->kind == CHP_HISTORY_INCR ? v + it->arg : v - (it->arg < v ? it->arg : v);
	o->a_len = (uint32_t)snprintf(o->digits, sizeof(o->digits), "%" PRIu64, v);
	o->a = (const uint8_t *)o->digits;
	return !it->has_number || it->number == v;
}

/* Whether a sight saw this state. */
static bool
sight_fits(const struct state *s, const struct item *it)
{
	if (it->sight == SIGHT_ABSENT)
		return !s->exists;
	if (!s->exists || (it->sees != NONE && s->version != it->sees))
		return false;
	switch (it->sight) {
	case SIGHT_VALUE:
		return s->len == it->len && memcmp(s->value, it->value, it->len) == 0;
	case SIGHT_OTHER_VERSION:
		return it->unlike == NONE || s->version != it->unlike;
	case SIGHT_NOT_NUMBER:
		return !state_is_number(s);
	default:
		return true;
	}
}

static bool
outcome_is(const struct outcome *o, const uint8_t *value, uint32_t len)
{
	return o->exists && (uint64_t)o->a_len + o->b_len == len &&
	       (o->a_len == 0 || memcmp(o->a, value, o->a_len) == 0) &&
	       (o->b_len == 0 || memcmp(o->b, value + o->a_len, o->b_len) == 0);
}

/* Whether the value is one that the history holds, so that nothing needs to be made. */
static bool
outcome_is_plain(const struct outcome *o)
{
	return o->b_len == 0 && o->a != (const uint8_t *)o->digits;
}

/* --- load ------------------------------------------------------------------------------------- */

static bool
failure_to_item(const struct chp_history_op *op, struct item *it)
{
	bool of_number = op->kind == CHP_HISTORY_INCR || op->kind == CHP_HISTORY_DECR;

	it->role = ROLE_SIGHT;
	it->seen = op->version;
	switch (op->status) {
	case CHP_HISTORY_NOT_FOUND:
		it->sight = SIGHT_ABSENT;
		it->seen = 0;
		return op->kind != CHP_HISTORY_PUT && op->kind != CHP_HISTORY_ADD;
	case CHP_HISTORY_EXISTS:
		it->sight = SIGHT_PRESENT;
		return op->kind == CHP_HISTORY_ADD;
	case CHP_HISTORY_COMPARE_FAILED:
		it->sight = SIGHT_OTHER_VERSION;
		return op->kind == CHP_HISTORY_CAS;
	case CHP_HISTORY_NOT_NUMBER:
		it->sight = SIGHT_NOT_NUMBER;
		return of_number;
	default:
		return false;
	}
}

/* False if the operation constrains nothing. */
static bool
op_to_item(const struct chp_history_op *op, struct item *it)
{
	*it = (struct item){
		.inv = op->invoke_ns,
		.ret = op->complete_ns,
		.arg = op->arg,
		.number = op->number,
		.value = op->value,
		.len = op->value_len,
		.writes = NONE,
		.sees = NONE,
		.unlike = NONE,
		.next_seer = NONE,
		.twin = NONE,
		.sources = NONE,
		.wanted = NONE,
		.kind = op->kind,
		.has_number = op->has_number,
	};
	if (op->outcome == CHP_HISTORY_FAIL)
		return failure_to_item(op, it);
	if (op->kind == CHP_HISTORY_GET) {
		it->role = ROLE_SIGHT;
		it->sight = op->value == NULL ? SIGHT_ABSENT : SIGHT_VALUE;
		it->seen = op->value == NULL ? 0 : op->version;
		return op->outcome == CHP_HISTORY_OK;
	}
	if (op->kind == CHP_HISTORY_CAS)
		it->seen = op->arg;
	if (op->outcome == CHP_HISTORY_OK) {
		it->role = ROLE_MUST;
		it->version = op->version;
	} else {
		it->role = ROLE_MAYBE;
		it->ret = NEVER;
	}
	return true;
}

static int
by_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a;
	uint64_t y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static int
by_invocation(const void *a, const void *b)
{
	const struct item *x = a;
	const struct item *y = b;

	if (x->inv != y->inv)
		return x->inv < y->inv ? -1 : 1;
	return x->op < y->op ? -1 : x->op > y->op;
}

static uint32_t
find_version(const struct work *w, uint64_t number)
{
	uint32_t lo = 0;
	uint32_t hi = w->n_versions;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (w->version[mid].number < number)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < w->n_versions && w->version[lo].number == number ? lo : NONE;
}

/* Tie an item to the versions it names. */
static void
link_versions(struct work *w, uint32_t i)
{
	struct item *it = &w->item[i];
	struct version *v;

	if (it->version != 0) {
		it->writes = find_version(w, it->version);
		v = &w->version[it->writes];
		if (v->writer != NONE) {
			w->twice[0] = v->writer;
			w->twice[1] = i;
		}
		v->writer = i;
	}
	if (it->role == ROLE_SIGHT && it->sight == SIGHT_OTHER_VERSION)
		it->unlike = find_version(w, it->arg);
	if (it->seen == 0)
		return;
	it->sees = find_version(w, it->seen);
	v = &w->version[it->sees];
	if (it->role != ROLE_MAYBE)
		v->needed++;
	if (it->role == ROLE_SIGHT) {
		it->next_seer = v->seer;
		v->seer = i;
		if (it->sight == SIGHT_VALUE)
			v->get = i;
		v->seen_deep |= it->sight == SIGHT_NOT_NUMBER;
	}
}

/* The table of all versions that items write, see or expect. */
static int
load_versions(struct work *w)
{
	uint64_t *number = work_take(w, (size_t)w->n * 2, sizeof(*number));
	size_t n = 0;

	w->n_versions = 0;
	w->n_chain = 0;
	w->twice[0] = w->twice[1] = NONE;
	if (number == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < w->n; i++) {
		if (w->item[i].version != 0)
			number[n++] = w->item[i].version;
		if (w->item[i].seen != 0)
			number[n++] = w->item[i].seen;
	}
	qsort(number, n, sizeof(*number), by_u64);
	w->version = work_take(w, n, sizeof(*w->version));
	w->chain = work_take(w, n, sizeof(*w->chain));
	if (w->version == NULL || w->chain == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		if (i > 0 && number[i] == number[i - 1])
			continue;
		w->version[w->n_versions++] = (struct version){
			.number = number[i],
			.writer = NONE,
			.seer = NONE,
			.get = NONE,
		};
	}
	for (uint32_t i = 0; i < w->n; i++)
		link_versions(w, i);
	for (uint32_t v = 0; v < w->n_versions; v++) {
		if (w->version[v].writer != NONE || w->version[v].needed > 0)
			w->chain[w->n_chain++] = v;
	}
	return 0;
}

static int
load_key(struct work *w, const struct chp_history_key *key)
{
	bool sorted = true;

	work_reset(w);
	w->n = w->n_maybe = w->n_unversioned = w->n_loose_gets = w->n_deep = 0;
	w->item = work_take(w, key->n_ops, sizeof(*w->item));
	w->maybe = work_take(w, key->n_ops, sizeof(*w->maybe));
	if (w->item == NULL || w->maybe == NULL)
		return -ENOMEM;
	for (uint32_t op = key->first; op != CHP_HISTORY_NONE; op = w->h->op[op].next) {
		struct item *it = &w->item[w->n];

		if (!op_to_item(&w->h->op[op], it))
			continue;
		it->op = op;
		if (w->n > 0 && it->inv < it[-1].inv)
			sorted = false;
		w->n++;
	}
	if (!sorted)
		qsort(w->item, w->n, sizeof(*w->item), by_invocation);
	for (uint32_t i = 0; i < w->n; i++) {
		const struct item *it = &w->item[i];

		if (it->role == ROLE_MAYBE) {
			w->maybe[w->n_maybe++] = i;
		} else if (it->role == ROLE_MUST) {
			w->n_unversioned += it->version == 0;
		} else if (it->seen == 0) {
			w->n_loose_gets += it->sight == SIGHT_VALUE;
			w->n_deep += it->sight == SIGHT_VALUE || it->sight == SIGHT_NOT_NUMBER;
		}
	}
	return load_versions(w);
}

/* --- witness: the order by version ------------------------------------------------------------ */

/*
 * The state after the j-th mutation of the chain, and when it can be seen; place 0 is the
 * beginning.
 */
struct place {
	uint64_t early;     /* latest invocation among all that comes before a sight here */
	uint64_t late;      /* earliest completion among all that comes after a sight here */
	uint64_t seers_ret; /* earliest completion of the sights that name this version */
	uint64_t seers_inv; /* latest invocation of them */
	uint32_t version;
	bool exists;
	bool number;
};

struct witness {
	struct work *w;
	struct place *place;
	bool *used;          /* maybes that an orphan version needed */
	uint32_t used_below; /* all before this maybe are used */
	struct state s;
};

/*
 * Make an outcome the witness's state; its value goes to the work's buffer unless the history holds
 * it.
 */
static int
witness_advance(struct witness *x, const struct outcome *o, uint32_t version)
{
	struct work *w = x->w;
	size_t len = (size_t)o->a_len + o->b_len;
	bool in_a = w->buf != NULL && o->a == w->buf;
	bool in_b = w->buf != NULL && o->b == w->buf;

	x->s.exists = o->exists;
	x->s.version = version;
	x->s.value = o->a;
	x->s.len = (uint32_t)len;
	if (outcome_is_plain(o))
		return 0;
	if (len > w->buf_cap || w->buf == NULL) {
		uint8_t *p = realloc(w->buf, len * 2 + 64);

		if (p == NULL)
			return -ENOMEM;
		w->buf = p;
		w->buf_cap = len * 2 + 64;
	}
	/* Appending to what is already there costs only what is appended. */
	if (o->b_len > 0)
		memmove(w->buf + o->a_len, in_b ? w->buf : o->b, o->b_len);
	if (!in_a && o->a_len > 0)
		memcpy(w->buf, o->a, o->a_len);
	x->s.value = w->buf;
	return 0;
}

/* When sights that name a version come, and the bounds that follow for all others. */
static void
witness_bounds(struct witness *x)
{
	struct work *w = x->w;
	uint64_t late = NEVER;

	for (uint32_t j = w->n_chain + 1; j-- > 0;) {
		struct place *p = &x->place[j];
		uint32_t writer;

		p->version = j == 0 ? NONE : w->chain[j - 1];
		p->late = late;
		p->seers_ret = NEVER;
		p->seers_inv = 0;
		if (j == 0)
			break;
		writer = w->version[p->version].writer;
		for (uint32_t i = w->version[p->version].seer; i != NONE;
		     i = w->item[i].next_seer) {
			if (w->item[i].ret < p->seers_ret)
				p->seers_ret = w->item[i].ret;
			if (w->item[i].inv > p->seers_inv)
				p->seers_inv = w->item[i].inv;
		}
		if (p->seers_ret < late)
			late = p->seers_ret;
		if (writer != NONE && w->item[writer].ret < late)
			late = w->item[writer].ret;
	}
}

/*
 * The maybe that wrote an orphan version: invoked in time, possible here, with the value that was
 * read. The first one is taken; where another would have been needed, the search finds out.
 */
static uint32_t
witness_adopt(struct witness *x, const struct place *p, struct outcome *o)
{
	struct work *w = x->w;
	const struct version *v = &w->version[p->version];
	uint64_t before = p->seers_ret < p->late ? p->seers_ret : p->late;

	while (x->used_below < w->n_maybe && x->used[x->used_below])
		x->used_below++;
	for (uint32_t m = x->used_below; m < w->n_maybe; m++) {
		const struct item *it = &w->item[w->maybe[m]];

		if (it->inv > before)
			break;
		if (x->used[m] || it->kind == CHP_HISTORY_DELETE || !mutate(&x->s, it, o))
			continue;
		if (v->get != NONE && !outcome_is(o, w->item[v->get].value, w->item[v->get].len))
			continue;
		x->used[m] = true;
		return w->maybe[m];
	}
	return NONE;
}

/*
 * Replay the chain with the sights that name versions: 1 all fits, 0 it does not, or a negative
 * error.
 */
static int
witness_replay(struct witness *x)
{
	struct work *w = x->w;
	uint64_t early = 0; /* latest invocation so far: what was complete before cannot follow */

	x->s = (struct state){ .version = NONE };
	for (uint32_t j = 1; j <= w->n_chain; j++) {
		struct place *p = &x->place[j];
		uint32_t writer = w->version[p->version].writer;
		struct outcome o;
		int rc;

		if (writer == NONE) {
			writer = witness_adopt(x, p, &o);
			if (writer == NONE)
				return 0;
		} else if (w->item[writer].ret < early || !mutate(&x->s, &w->item[writer], &o)) {
			return 0;
		}
		if (w->item[writer].inv > early)
			early = w->item[writer].inv;
		rc = witness_advance(x, &o, p->version);
		if (rc != 0)
			return rc;
		if (p->seers_ret < early)
			return 0;
		for (uint32_t i = w->version[p->version].seer; i != NONE;
		     i = w->item[i].next_seer) {
			if (!sight_fits(&x->s, &w->item[i]))
				return 0;
		}
		p->early = early;
		p->exists = x->s.exists;
		p->number = state_is_number(&x->s);
		if (p->seers_inv > early)
			early = p->seers_inv;
	}
	return 1;
}

static bool
place_fits(const struct place *p, const struct item *it)
{
	switch (it->sight) {
	case SIGHT_ABSENT:
		return !p->exists;
	case SIGHT_NOT_NUMBER:
		return p->exists && !p->number;
	case SIGHT_OTHER_VERSION:
		return p->exists && (it->unlike == NONE || it->unlike != p->version);
	default:
		return p->exists;
	}
}

/* A sight that names no version, and where it was put. */
struct loose {
	uint64_t ret;
	uint32_t item;
	uint32_t place;
};

static int
by_completion(const void *a, const void *b)
{
	const struct loose *const *x = a;
	const struct loose *const *y = b;

	return (*x)->ret < (*y)->ret ? -1 : (*x)->ret > (*y)->ret;
}

/*
 * Put the sights that name no version, in order of invocation, each as early as it may stand: not
 * before those that completed before it began. This finds a way if there is one, because the least
 * places that meet such conditions are met by all at once.
 */
static bool
witness_put_loose(struct witness *x, struct loose *loose, struct loose **by_ret, uint32_t n)
{
	struct work *w = x->w;
	uint32_t floor = 0;
	uint32_t done = 0; /* of by_ret */

	for (uint32_t k = 0; k < n; k++) {
		const struct item *it = &w->item[loose[k].item];
		uint32_t lo = 0;
		uint32_t hi = w->n_chain;

		for (; by_ret[done]->ret < it->inv; done++) {
			if (by_ret[done]->place > floor)
				floor = by_ret[done]->place;
		}
		while (lo < hi) {
			uint32_t mid = lo + (hi - lo) / 2;

			if (x->place[mid].late < it->inv)
				lo = mid + 1;
			else
				hi = mid;
		}
		if (lo < floor)
			lo = floor;
		while (lo <= w->n_chain && x->place[lo].early <= it->ret &&
		       !place_fits(&x->place[lo], it))
			lo++;
		if (lo > w->n_chain || x->place[lo].early > it->ret)
			return false;
		loose[k].place = lo;
	}
	return true;
}

static int
witness_loose(struct witness *x)
{
	struct work *w = x->w;
	struct loose *loose = work_take(w, w->n, sizeof(*loose));
	struct loose **by_ret = work_take(w, w->n, sizeof(*by_ret));
	uint32_t n = 0;

	if (loose == NULL || by_ret == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < w->n; i++) {
		const struct item *it = &w->item[i];

		if (it->role != ROLE_SIGHT || it->sees != NONE)
			continue;
		loose[n] = (struct loose){ .ret = it->ret, .item = i };
		by_ret[n] = &loose[n];
		n++;
	}
	qsort(by_ret, n, sizeof(*by_ret), by_completion);
	return witness_put_loose(x, loose, by_ret, n) ? 1 : 0;
}

/*
 * 1: the order by version explains the key. 0: it does not, or does not say enough. Else an error.
 */
static int
witness_check(struct work *w)
{
	struct witness x = { .w = w };
	int rc;

	if (w->n_unversioned > 0 || w->n_loose_gets > 0)
		return 0;
	x.place = work_take(w, (size_t)w->n_chain + 1, sizeof(*x.place));
	x.used = work_take(w, w->n_maybe, sizeof(*x.used));
	if (x.place == NULL || x.used == NULL)
		return -ENOMEM;
	witness_bounds(&x);
	rc = witness_replay(&x);
	return rc == 1 ? witness_loose(&x) : rc;
}

/* --- flaws: a few items that contradict each other -------------------------------------------- */

/*
 * Whether something without a version could have written what an item saw, as far as that alone
 * tells.
 */
static bool
could_be_written(const struct work *w, const struct item *it)
{
	for (uint32_t m = 0; m < w->n_maybe; m++) {
		const struct item *by = &w->item[w->maybe[m]];

		if (by->kind == CHP_HISTORY_DELETE || by->inv > it->ret)
			continue;
		if (by->kind >= CHP_HISTORY_APPEND || it->role != ROLE_SIGHT ||
		    it->sight != SIGHT_VALUE ||
		    (by->len == it->len && memcmp(by->value, it->value, it->len) == 0))
			return true;
	}
	return w->n_unversioned > 0;
}

enum flaw_kind {
	FLAW_NONE = 0,
	FLAW_UNWRITTEN, /* nothing can have written what it saw */
	FLAW_FUTURE,    /* it was complete before what it saw was invoked */
	FLAW_VALUE,     /* what it saw was written with another value */
	FLAW_STALE,     /* `other` came between what it saw and itself */
	FLAW_TWO,       /* `other` shows that another version was there at the time */
};

/* A few items that contradict each other in every order, whatever else there is. */
struct flaw {
	enum flaw_kind kind;
	uint32_t item;
	uint32_t other;
};

/*
 * From `from` to `to` the key had this version, for sure: it was there before and was still seen
 * after.
 */
struct zone {
	uint64_t from;
	uint64_t to;
	uint32_t version;
	uint32_t last; /* the item that saw it after */
};

/* Whether the version that an item saw and the operation that wrote it go together in any order. */
static enum flaw_kind
find_pair_flaw(const struct work *w, const struct item *it)
{
	const struct item *by;

	if (it->sees == NONE || it->role == ROLE_MAYBE)
		return FLAW_NONE;
	if (w->version[it->sees].writer == NONE)
		return could_be_written(w, it) ? FLAW_NONE : FLAW_UNWRITTEN;
	by = &w->item[w->version[it->sees].writer];
	if (by->inv > it->ret)
		return FLAW_FUTURE;
	if (by->kind == CHP_HISTORY_DELETE)
		return FLAW_VALUE;
	if (it->role != ROLE_SIGHT || it->sight != SIGHT_VALUE || by->kind >= CHP_HISTORY_APPEND)
		return FLAW_NONE;
	return by->len == it->len && memcmp(by->value, it->value, it->len) == 0 ? FLAW_NONE
										: FLAW_VALUE;
}

static int
by_from(const void *a, const void *b)
{
	const struct zone *x = a;
	const struct zone *y = b;

	return x->from < y->from ? -1 : x->from > y->from;
}

static void
widen_zone(struct zone *z, const struct work *w, uint32_t i)
{
	if (w->item[i].ret < z->from)
		z->from = w->item[i].ret;
	if (z->last == NONE || w->item[i].inv > z->to) {
		z->to = w->item[i].inv;
		z->last = i;
	}
}

/* The zones of all versions that have one, in order of time; NULL: no memory. */
static struct zone *
find_zones(struct work *w, uint32_t *n)
{
	struct zone *z = work_take(w, w->n_versions, sizeof(*z));

	*n = 0;
	if (z == NULL)
		return NULL;
	for (uint32_t v = 0; v < w->n_versions; v++)
		z[v] = (struct zone){ .from = NEVER, .version = v, .last = NONE };
	for (uint32_t i = 0; i < w->n; i++) {
		if (w->item[i].role == ROLE_MUST && w->item[i].writes != NONE)
			widen_zone(&z[w->item[i].writes], w, i);
		if (w->item[i].role != ROLE_MAYBE && w->item[i].sees != NONE)
			widen_zone(&z[w->item[i].sees], w, i);
	}
	for (uint32_t v = 0; v < w->n_versions; v++) {
		if (z[v].last != NONE && z[v].from < z[v].to)
			z[(*n)++] = z[v];
	}
	qsort(z, *n, sizeof(*z), by_from);
	return z;
}

/* The last zone that begins before t; NULL. */
static const struct zone *
zone_before(const struct zone *z, uint32_t n, uint64_t t)
{
	uint32_t lo = 0;
	uint32_t hi = n;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (z[mid].from < t)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo == 0 ? NULL : &z[lo - 1];
}

/* Whether the key cannot have had version v when this item took effect, or not any more. */
static bool
excludes(const struct item *it, uint32_t v)
{
	if (it->role == ROLE_MUST)
		return it->writes != v;
	return it->role == ROLE_SIGHT &&
	       (it->sight == SIGHT_ABSENT || (it->sees != NONE && it->sees != v));
}

/* An item with this role that took effect within a zone that excludes it. */
static bool
find_zone_flaw(const struct work *w, const struct zone *zones, uint32_t n, enum role role,
	       struct flaw *f)
{
	for (uint32_t i = 0; i < w->n; i++) {
		const struct item *it = &w->item[i];
		const struct zone *z = zone_before(zones, n, it->inv);

		if (it->role == role && z != NULL && it->ret < z->to && excludes(it, z->version)) {
			*f = (struct flaw){ role == ROLE_MUST ? FLAW_STALE : FLAW_TWO, z->last, i };
			return true;
		}
	}
	return false;
}

/*
 * Look for a flaw; most faults of real systems have one, which spares a search and says what is
 * wrong.
 */
static int
find_flaw(struct work *w, struct flaw *f)
{
	struct zone *zones;
	uint32_t n;

	for (uint32_t i = 0; i < w->n; i++) {
		*f = (struct flaw){ find_pair_flaw(w, &w->item[i]), i, NONE };
		if (f->kind != FLAW_NONE)
			return 0;
	}
	zones = find_zones(w, &n);
	if (zones == NULL)
		return -ENOMEM;
	if (find_zone_flaw(w, zones, n, ROLE_MUST, f) || find_zone_flaw(w, zones, n, ROLE_SIGHT, f))
		return 0;
	for (uint32_t k = 1; k < n; k++) {
		if (zones[k].from < zones[k - 1].to) {
			*f = (struct flaw){ FLAW_TWO, zones[k - 1].last, zones[k].last };
			return 0;
		}
	}
	f->kind = FLAW_NONE;
	return 0;
}

/* --- search ----------------------------------------------------------------------------------- */

enum found {
	FOUND_ORDER = 0,
	FOUND_NONE,
	FOUND_LIMIT,
	FOUND_STOP, /* as many items placed as asked for */
};

enum phase {
	PHASE_CHAIN, /* the next version of the chain */
	PHASE_MUST,
	PHASE_ORPHAN, /* maybes as the writers of versions that somebody saw */
	PHASE_MAYBE,  /* maybes under a version that nobody names */
	PHASE_WANTED, /* the same for maybes that seem to explain something that is still to come */
	PHASE_END,
};

/* A configuration: what is placed, and the state after it. */
struct frame {
	struct state s;
	uint8_t *owned;  /* the value if the history does not hold it */
	uint64_t limit;  /* earliest completion of what is not placed: later invocations wait */
	uint32_t mark;   /* items placed before this frame's */
	uint32_t chain;  /* ordered: place of the next version in the chain */
	uint32_t last;   /* ordered: 1 + the version placed last */
	uint32_t cursor; /* where next_item goes on: node or maybe */
	uint32_t item;   /* being tried; NONE */
	uint32_t bind;   /* the orphan it is tried as next */
	uint8_t phase;
	bool idle;    /* the last item is a maybe that nothing has seen yet */
	bool revived; /* and before it the key was absent */
};

/* One of the orphans that a maybe can have written. */
struct source {
	uint32_t orphan;
	uint32_t next; /* index in search.source; NONE */
};

/* When an item was complete. */
struct moment {
	uint64_t t;
	uint32_t item;
};

/*
 * The items that are certain stand in one ring as two nodes each, invocation and completion,
 * ordered by time. Those that may come next are the invocations before the first completion.
 * Placing an item takes its nodes out; they keep their links and go back in reverse order. Node 0
 * is the ring's start, item i has the nodes 2 i + 1 and 2 i + 2.
 */
struct search {
	struct work *w;
	const struct chp_linear_limits *lim;
	bool ordered;     /* versions have to grow */
	uint32_t stop_at; /* certain items placed at which to stop; NONE */
	uint32_t *next;
	uint32_t *prev;
	uint32_t *maybe_next; /* ring of maybes not placed: index in work.maybe + 1; 0 starts it */
	uint32_t *maybe_prev;
	uint32_t *maybe_at; /* by item: its index in the ring */
	bool *placed;       /* by item */
	uint32_t *order;    /* items placed, in order */
	uint32_t *left;     /* by version: certain items that saw it and are not placed */
	uint32_t *done;     /* by version: items placed that saw it */
	uint32_t *orphan;   /* versions without a writer */
	struct frame *frame;
	struct moment *ret;
	struct source *source;
	uint32_t *n_writers; /* by orphan: its sources that are not placed; no incr and decr */
	uint32_t n_sources;
	uint32_t sources_max;
	bool counted; /* n_writers is complete */
	uint32_t n_orphans;
	uint32_t n_soft; /* orphans that nobody saw for sure; a maybe expects them */
	uint32_t n_placed;
	uint32_t n_certain; /* of n_placed */
	uint32_t depth;
	uint32_t best;   /* most certain items that were ever placed */
	uint64_t set_lo; /* hash of the set of items that are placed; maybes only if n_words is 0 */
	uint64_t set_hi;
	uint64_t *maybes;  /* the set of maybes that are placed, a bit each */
	size_t n_words;    /* of maybes; 0: there are too many */
	uint32_t n_concat; /* maybes not placed: append and prepend */
	uint32_t n_arith;  /* incr and decr */
	uint32_t n_digits; /* of n_concat: what adds digits or nothing */
	uint64_t sum[2];   /* what the incr and the decr of n_arith add and subtract */
	bool wraps;        /* the sums are not kept, they may pass 2^63 */
	uint32_t n_replace;
	uint64_t states;
	uint64_t states_max;
	uint64_t bytes;   /* of owned values */
	size_t memo_n;    /* entries */
	size_t memo_keys; /* slots taken */
};

static uint64_t
mix(uint64_t x)
{
	x += UINT64_C(0x9e3779b97f4a7c15);
	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

static bool
is_call(uint32_t node)
{
	return (node & 1) != 0;
}

static uint32_t
node_item(uint32_t node)
{
	return (node - 1) / 2;
}

static void
unlink_node(uint32_t *next, uint32_t *prev, uint32_t node)
{
	next[prev[node]] = next[node];
	prev[next[node]] = prev[node];
}

static void
relink_node(uint32_t *next, uint32_t *prev, uint32_t node)
{
	next[prev[node]] = node;
	prev[next[node]] = node;
}

static int
by_moment(const void *a, const void *b)
{
	const struct moment *x = a;
	const struct moment *y = b;

	return x->t < y->t ? -1 : x->t > y->t;
}

static void
append_node(struct search *s, uint32_t *tail, uint32_t node)
{
	s->next[*tail] = node;
	s->prev[node] = *tail;
	*tail = node;
}

/* Build the ring of the certain items. At one moment invocations come before completions. */
static void
build_ring(struct search *s)
{
	const struct work *w = s->w;
	struct moment *ret = s->ret;
	uint32_t n = 0;
	uint32_t k = 0;
	uint32_t tail = 0;

	for (uint32_t i = 0; i < w->n; i++) {
		if (w->item[i].role != ROLE_MAYBE)
			ret[n++] = (struct moment){ .t = w->item[i].ret, .item = i };
	}
	qsort(ret, n, sizeof(*ret), by_moment);
	for (uint32_t i = 0; i < w->n; i++) {
		if (w->item[i].role == ROLE_MAYBE)
			continue;
		for (; ret[k].t < w->item[i].inv; k++)
			append_node(s, &tail, 2 * ret[k].item + 2);
		append_node(s, &tail, 2 * i + 1);
	}
	for (; k < n; k++)
		append_node(s, &tail, 2 * ret[k].item + 2);
	append_node(s, &tail, 0);
}

static int
by_deed(const void *a, const void *b)
{
	const struct item *const *x = a;
	const struct item *const *y = b;

	if ((*x)->hash != (*y)->hash)
		return (*x)->hash < (*y)->hash ? -1 : 1;
	if ((*x)->kind != (*y)->kind)
		return (*x)->kind < (*y)->kind ? -1 : 1;
	if ((*x)->arg != (*y)->arg)
		return (*x)->arg < (*y)->arg ? -1 : 1;
	return *x < *y ? -1 : *x > *y;
}

static bool
same_deed(const struct item *x, const struct item *y)
{
	return x->kind == y->kind && x->arg == y->arg && x->len == y->len &&
	       (x->len == 0 || memcmp(x->value, y->value, x->len) == 0);
}

/* Maybes that may explain what a certain item saw, to be kept for it. */
struct deeds {
	struct item **deed; /* sorted by hash */
	uint32_t n;
};

/* Note that a maybe can have written an orphan. */
static void
add_source(struct search *s, struct item *it, uint32_t orphan)
{
	if (s->n_sources == s->sources_max) {
		s->counted = false;
		return;
	}
	s->source[s->n_sources] = (struct source){ orphan, it->sources };
	it->sources = s->n_sources++;
	s->n_writers[orphan]++;
}

/* Mark the maybes that write a value as wanted by an item that needs it. */
static void
mark_wanted(struct search *s, const struct deeds *d, const uint8_t *value, uint32_t len,
	    uint32_t by, uint32_t orphan)
{
	uint64_t hash = chp_history_hash(value, len);
	uint32_t lo = 0;
	uint32_t hi = d->n;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (d->deed[mid]->hash < hash)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (; lo < d->n && d->deed[lo]->hash == hash; lo++) {
		struct item *it = d->deed[lo];

		if (it->kind >= CHP_HISTORY_APPEND || it->kind == CHP_HISTORY_DELETE ||
		    it->len != len)
			continue;
		it->wanted = by;
		if (orphan != NONE)
			add_source(s, it, orphan);
	}
}

/* Mark the maybes that append or prepend what a value ends or begins with. */
static void
mark_wanted_parts(struct search *s, const uint8_t *value, uint32_t len, uint32_t by,
		  uint32_t orphan)
{
	const struct work *w = s->w;

	for (uint32_t m = 0; m < w->n_maybe; m++) {
		struct item *it = &w->item[w->maybe[m]];
		bool append = it->kind == CHP_HISTORY_APPEND;

		if ((append || it->kind == CHP_HISTORY_PREPEND) && it->len <= len &&
		    memcmp(append ? value + (len - it->len) : value, it->value, it->len) == 0) {
			it->wanted = by;
			add_source(s, it, orphan);
		}
	}
}

/*
 * Find out which maybes can have written the orphans, and guess from that and from the values that
 * musts have met what a maybe is best kept for.
 */
static void
find_wanted(struct search *s, const struct deeds *d)
{
	const struct work *w = s->w;
	char digits[DIGITS_BYTES];

	for (uint32_t i = 0; i < w->n; i++) {
		const struct item *it = &w->item[i];
		const struct item *get = it->writes == NONE || w->version[it->writes].get == NONE
						 ? NULL
						 : &w->item[w->version[it->writes].get];

		if (it->role != ROLE_MUST)
			continue;
		if (it->has_number) {
			uint64_t v = it->kind == CHP_HISTORY_INCR ? it->number - it->arg
								  : it->number + it->arg;
			int len = snprintf(digits, sizeof(digits), "%" PRIu64, v);

			mark_wanted(s, d, (const uint8_t *)digits, (uint32_t)len, i, NONE);
		}
		if (get == NULL || get->len < it->len)
			continue;
		if (it->kind == CHP_HISTORY_APPEND)
			mark_wanted(s, d, get->value, get->len - it->len, i, NONE);
		if (it->kind == CHP_HISTORY_PREPEND)
			mark_wanted(s, d, get->value + it->len, get->len - it->len, i, NONE);
	}
	for (uint32_t k = 0; k < s->n_orphans; k++) {
		uint32_t i = w->version[s->orphan[k]].get;

		if (i == NONE)
			continue;
		mark_wanted(s, d, w->item[i].value, w->item[i].len, i, s->orphan[k]);
		if ((uint64_t)s->n_orphans * w->n_maybe < WANTED_PARTS_MAX)
			mark_wanted_parts(s, w->item[i].value, w->item[i].len, i, s->orphan[k]);
		else
			s->counted = false;
	}
}

/*
 * Maybes that do the same are exchangeable, and the one invoked first can stand wherever another
 * can: only that one is tried. Items lie in order of invocation, so among equal ones addresses give
 * that order.
 */
static int
compare_maybes(struct search *s)
{
	struct work *w = s->w;
	struct item **deed = work_take(w, w->n_maybe, sizeof(*deed));

	if (deed == NULL)
		return -ENOMEM;
	for (uint32_t m = 0; m < w->n_maybe; m++)
		deed[m] = &w->item[w->maybe[m]];
	qsort(deed, w->n_maybe, sizeof(*deed), by_deed);
	for (uint32_t m = 1; m < w->n_maybe; m++) {
		if (deed[m]->hash == deed[m - 1]->hash && same_deed(deed[m], deed[m - 1]))
			deed[m]->twin = (uint32_t)(deed[m - 1] - w->item);
	}
	find_wanted(s, &(struct deeds){ deed, w->n_maybe });
	return 0;
}

/* Take the arrays of a search; false: no memory. */
static bool
take_arrays(struct search *s)
{
	struct work *w = s->w;
	size_t n = w->n;

	s->n_words = w->n_maybe <= MAYBES_MAX ? (w->n_maybe + 63u) / 64 : 0;
	s->sources_max = 2 * w->n + 64;
	s->next = work_take(w, 2 * n + 1, sizeof(*s->next));
	s->prev = work_take(w, 2 * n + 1, sizeof(*s->prev));
	s->maybe_next = work_take(w, (size_t)w->n_maybe + 1, sizeof(*s->maybe_next));
	s->maybe_prev = work_take(w, (size_t)w->n_maybe + 1, sizeof(*s->maybe_prev));
	s->maybe_at = work_take(w, n, sizeof(*s->maybe_at));
	s->placed = work_take(w, n, sizeof(*s->placed));
	s->order = work_take(w, n, sizeof(*s->order));
	s->left = work_take(w, w->n_versions, sizeof(*s->left));
	s->done = work_take(w, w->n_versions, sizeof(*s->done));
	s->orphan = work_take(w, w->n_versions, sizeof(*s->orphan));
	s->n_writers = work_take(w, w->n_versions, sizeof(*s->n_writers));
	s->source = work_take(w, s->sources_max, sizeof(*s->source));
	s->maybes = work_take(w, s->n_words, sizeof(*s->maybes));
	s->ret = work_take(w, n, sizeof(*s->ret));
	s->frame = work_take(w, n + 1, sizeof(*s->frame));
	return s->next != NULL && s->prev != NULL && s->maybe_next != NULL &&
	       s->maybe_prev != NULL && s->maybe_at != NULL && s->placed != NULL &&
	       s->order != NULL && s->left != NULL && s->done != NULL && s->orphan != NULL &&
	       s->n_writers != NULL && s->source != NULL && s->maybes != NULL && s->ret != NULL &&
	       s->frame != NULL;
}

static int
search_init(struct search *s, struct work *w, const struct chp_linear_limits *lim)
{
	*s = (struct search){
		.w = w, .lim = lim, .stop_at = NONE, .counted = w->n_unversioned == 0
	};
	if (!take_arrays(s))
		return -ENOMEM;
	for (uint32_t i = 0; i < w->n; i++) {
		struct item *it = &w->item[i];

		it->hash = chp_history_hash(it->len == 0 ? "" : (const char *)it->value, it->len);
		if (it->role == ROLE_MAYBE && it->kind >= CHP_HISTORY_INCR)
			s->wraps |= it->arg > (UINT64_MAX >> 1) / w->n_maybe;
	}
	for (uint32_t v = 0; v < w->n_versions; v++) {
		if (w->version[v].writer != NONE)
			continue;
		s->orphan[s->n_orphans++] = v;
		s->n_soft += w->version[v].needed == 0;
	}
	return compare_maybes(s);
}

static bool
is_digits(const uint8_t *p, uint32_t len)
{
	for (uint32_t i = 0; i < len; i++) {
		if (p[i] < '0' || p[i] > '9')
			return false;
	}
	return true;
}

/* Count a maybe as not placed, or no longer. */
static void
count_maybe(struct search *s, uint32_t i, bool more)
{
	const struct item *it = &s->w->item[i];
	uint32_t one = more ? 1 : UINT32_MAX;

	switch (it->kind) {
	case CHP_HISTORY_REPLACE:
		s->n_replace += one;
		break;
	case CHP_HISTORY_APPEND:
	case CHP_HISTORY_PREPEND:
		s->n_concat += one;
		if (is_digits(it->value, it->len))
			s->n_digits += one;
		break;
	case CHP_HISTORY_INCR:
	case CHP_HISTORY_DECR:
		s->n_arith += one;
		if (!s->wraps)
			s->sum[it->kind == CHP_HISTORY_DECR] += more ? it->arg : -it->arg;
		break;
	default:
		break;
	}
	for (uint32_t k = it->sources; k != NONE; k = s->source[k].next)
		s->n_writers[s->source[k].orphan] += one;
}

/* Back to nothing placed. */
static void
search_rewind(struct search *s)
{
	const struct work *w = s->w;

	memset(s->placed, 0, w->n * sizeof(*s->placed));
	memset(s->n_writers, 0, w->n_versions * sizeof(*s->n_writers));
	memset(s->done, 0, w->n_versions * sizeof(*s->done));
	for (uint32_t v = 0; v < w->n_versions; v++)
		s->left[v] = w->version[v].needed;
	for (uint32_t m = 0; m <= w->n_maybe; m++) {
		s->maybe_next[m] = m == w->n_maybe ? 0 : m + 1;
		s->maybe_prev[m] = m == 0 ? w->n_maybe : m - 1;
		if (m > 0)
			s->maybe_at[w->maybe[m - 1]] = m;
	}
	memset(s->maybes, 0, s->n_words * sizeof(*s->maybes));
	s->n_placed = s->n_certain = s->depth = s->best = 0;
	s->set_lo = s->set_hi = 0;
	s->n_concat = s->n_arith = s->n_digits = s->n_replace = 0;
	s->sum[0] = s->sum[1] = 0;
	for (uint32_t m = 0; m < w->n_maybe; m++)
		count_maybe(s, w->maybe[m], true);
	s->states = s->bytes = s->memo_n = s->memo_keys = 0;
	if (w->memo_slot != NULL)
		memset(w->memo_slot, 0, w->memo_slots * sizeof(*w->memo_slot));
	build_ring(s);
}

/* Free the values of all frames, and a memo that is too large to keep for every key. */
static void
search_end(struct search *s)
{
	for (uint32_t d = 0; d < s->depth; d++)
		free(s->frame[d].owned);
	s->depth = 0;
	if (s->w->memo_slots > MEMO_SLOTS_KEPT || s->w->memo_words > MEMO_WORDS_KEPT) {
		free(s->w->memo);
		free(s->w->memo_slot);
		s->w->memo = NULL;
		s->w->memo_slot = NULL;
		s->w->memo_words = s->w->memo_slots = 0;
	}
}

static void
toggle_in_set(struct search *s, uint32_t i)
{
	s->set_lo ^= mix(2 * (uint64_t)i + 1);
	s->set_hi ^= mix(2 * (uint64_t)i + 2);
}

static void
toggle_maybe(struct search *s, uint32_t i)
{
	uint32_t bit = s->maybe_at[i] - 1;

	if (s->n_words > 0)
		s->maybes[bit / 64] ^= UINT64_C(1) << bit % 64;
	else
		toggle_in_set(s, i);
	count_maybe(s, i, !s->placed[i]);
}

static void
put_item(struct search *s, uint32_t i)
{
	const struct item *it = &s->w->item[i];

	s->order[s->n_placed++] = i;
	if (it->sees != NONE)
		s->done[it->sees]++;
	s->placed[i] = true;
	if (it->role == ROLE_MAYBE) {
		toggle_maybe(s, i);
		unlink_node(s->maybe_next, s->maybe_prev, s->maybe_at[i]);
		return;
	}
	toggle_in_set(s, i);
	s->n_certain++;
	if (it->sees != NONE)
		s->left[it->sees]--;
	unlink_node(s->next, s->prev, 2 * i + 1);
	unlink_node(s->next, s->prev, 2 * i + 2);
}

static void
take_back_item(struct search *s)
{
	uint32_t i = s->order[--s->n_placed];
	const struct item *it = &s->w->item[i];

	if (it->sees != NONE)
		s->done[it->sees]--;
	s->placed[i] = false;
	if (it->role == ROLE_MAYBE) {
		toggle_maybe(s, i);
		relink_node(s->maybe_next, s->maybe_prev, s->maybe_at[i]);
		return;
	}
	toggle_in_set(s, i);
	s->n_certain--;
	if (it->sees != NONE)
		s->left[it->sees]++;
	relink_node(s->next, s->prev, 2 * i + 2);
	relink_node(s->next, s->prev, 2 * i + 1);
}

/*
 * Place all sights that fit the new state and may come next. They change nothing, so a way that
 * places them later exists only if one that places them now does.
 */
static void
put_sights(struct search *s, struct frame *f)
{
	uint32_t node = s->next[0];

	while (is_call(node)) {
		uint32_t i = node_item(node);
		const struct item *it = &s->w->item[i];

		if (it->role == ROLE_SIGHT && sight_fits(&f->s, it)) {
			put_item(s, i);
			f->idle = false;
			if (s->next[node] == node + 1)
				node = node + 1; /* its completion, out of the ring by now */
		}
		node = s->next[node];
	}
	f->limit = node == 0 ? NEVER : s->w->item[node_item(node)].ret;
}

static int
memo_grow_slots(struct work *w, size_t stride)
{
	size_t cap = w->memo_slots == 0 ? MEMO_SLOTS_MIN : w->memo_slots * 2;
	uint32_t *slot = calloc(cap, sizeof(*slot));

	if (slot == NULL)
		return -ENOMEM;
	for (size_t k = 0; k < w->memo_slots; k++) {
		size_t i;

		if (w->memo_slot[k] == 0)
			continue;
		i = (size_t)w->memo[(w->memo_slot[k] - 1) * stride] & (cap - 1);
		while (slot[i] != 0)
			i = (i + 1) & (cap - 1);
		slot[i] = w->memo_slot[k];
	}
	free(w->memo_slot);
	w->memo_slot = slot;
	w->memo_slots = cap;
	return 0;
}

static int
memo_grow(struct search *s, size_t stride)
{
	struct work *w = s->w;
	uint64_t *memo;

	if (s->memo_keys >= w->memo_slots / 2 && memo_grow_slots(w, stride) != 0)
		return -ENOMEM;
	if ((s->memo_n + 1) * stride <= w->memo_words)
		return 0;
	memo = realloc(w->memo, (w->memo_words + MEMO_SLOTS_MIN * stride) * 2 * sizeof(*memo));
	if (memo == NULL)
		return -ENOMEM;
	w->memo = memo;
	w->memo_words = (w->memo_words + MEMO_SLOTS_MIN * stride) * 2;
	return 0;
}

/*
 * Bytes that the configurations of this search need, with the slack of arrays that double. What the
 * arrays have kept from earlier searches does not count: a search has to go the same way when it is
 * repeated.
 */
static uint64_t
memo_bytes(const struct search *s)
{
	return ((uint64_t)s->memo_n * (MEMO_HEAD + s->n_words) * sizeof(*s->w->memo) +
		(uint64_t)s->memo_keys * 2 * sizeof(*s->w->memo_slot)) *
	       2;
}

static bool
is_subset(const uint64_t *a, const uint64_t *b, size_t n)
{
	for (size_t k = 0; k < n; k++) {
		if ((a[k] & ~b[k]) != 0)
			return false;
	}
	return true;
}

/*
 * Remember a configuration: 1 it is new, 0 there is nothing new to find from it, -ENOMEM. That is
 * so when one was visited with the same certain items placed, in the same state, and with the same
 * or fewer maybes: maybes need not be placed, so what follows here can follow there as well.
 * Without this each maybe that changes nothing for long would double the work.
 */
static int
memo_add(struct search *s, const struct frame *f)
{
	struct work *w = s->w;
	size_t stride = MEMO_HEAD + s->n_words;
	uint64_t h = mix((uint64_t)f->s.version << 32 | f->last) ^ mix(f->s.hash + f->s.len);
	uint64_t lo = s->set_lo ^ mix(h + (f->s.exists ? 1 : 0));
	uint64_t hi = s->set_hi ^ mix(~h);
	uint64_t *e;
	size_t i;
	uint64_t next = 0;

	if (memo_grow(s, stride) != 0)
		return -ENOMEM;
	for (i = (size_t)lo & (w->memo_slots - 1); w->memo_slot[i] != 0;
	     i = (i + 1) & (w->memo_slots - 1)) {
		e = &w->memo[(w->memo_slot[i] - 1) * stride];
		if (e[0] == lo && e[1] == hi) {
			next = w->memo_slot[i];
			break;
		}
	}
	for (uint64_t at = next, k = 0; at != 0 && k < MEMO_CHAIN_MAX; k++) {
		e = &w->memo[(at - 1) * stride];
		if (is_subset(e + MEMO_HEAD, s->maybes, s->n_words))
			return 0;
		at = e[2];
	}
	e = &w->memo[s->memo_n++ * stride];
	e[0] = lo;
	e[1] = hi;
	e[2] = next;
	if (s->n_words > 0)
		memcpy(e + MEMO_HEAD, s->maybes, s->n_words * sizeof(*e));
	s->memo_keys += next == 0;
	w->memo_slot[i] = (uint32_t)s->memo_n;
	return 1;
}

/*
 * A maybe that the next mutation wipes out before anybody saw it need not have taken effect: the
 * way without it is as good. The same holds for one that only revived the key for another maybe to
 * delete.
 */
static bool
wipes_out(const struct frame *f, const struct item *it)
{
	switch (it->kind) {
	case CHP_HISTORY_PUT:
		return true;
	case CHP_HISTORY_REPLACE:
		return !f->revived;
	case CHP_HISTORY_DELETE:
		return !f->revived || it->role == ROLE_MAYBE;
	default:
		return false;
	}
}

/* Whether the item may be tried as the next one in this frame. */
static bool
may_come_next(const struct search *s, const struct frame *f, uint32_t i)
{
	const struct item *it = &s->w->item[i];

	if (it->inv > f->limit || s->placed[i])
		return false;
	if (it->role == ROLE_MAYBE && it->twin != NONE && !s->placed[it->twin])
		return false;
	return !(f->idle && wipes_out(f, it));
}

/* Whether a maybe seems to explain what is still to come: better not used up for something else. */
static bool
is_wanted(const struct search *s, uint32_t i)
{
	uint32_t by = s->w->item[i].wanted;

	return by != NONE && !s->placed[by];
}

/* Whether an orphan can be the version that is written next. */
static bool
orphan_may_come(const struct search *s, const struct frame *f, uint32_t v)
{
	const struct work *w = s->w;

	if (s->done[v] > 0 || f->s.version == v)
		return false;
	if (!s->ordered)
		return true;
	if (f->chain < w->n_chain && v == w->chain[f->chain])
		return true;
	return w->version[v].needed == 0 && v + 1 > f->last &&
	       (f->chain == w->n_chain || v < w->chain[f->chain]);
}

/* Whether some orphan can be the version that is written next; errs on yes. */
static bool
orphans_may_come(const struct search *s, const struct frame *f)
{
	const struct work *w = s->w;

	if (!s->ordered || s->n_soft > 0)
		return s->n_orphans > 0;
	return f->chain < w->n_chain && w->version[w->chain[f->chain]].writer == NONE;
}

/* Set f->item to the next candidate; false when there is none left. */
static bool
next_item(struct search *s, struct frame *f)
{
	struct work *w = s->w;

	f->bind = 0;
	if (f->phase == PHASE_CHAIN) {
		f->phase = PHASE_MUST;
		f->cursor = 0;
		if (s->ordered && f->chain < w->n_chain) {
			f->item = w->version[w->chain[f->chain]].writer;
			if (f->item != NONE && may_come_next(s, f, f->item))
				return true;
		}
	}
	if (f->phase == PHASE_MUST) {
		while ((!s->ordered || w->n_unversioned > 0) &&
		       is_call(f->cursor = s->next[f->cursor])) {
			f->item = node_item(f->cursor);
			if (w->item[f->item].role == ROLE_MUST && may_come_next(s, f, f->item) &&
			    (!s->ordered || w->item[f->item].version == 0))
				return true;
		}
		f->phase = orphans_may_come(s, f) ? PHASE_ORPHAN : PHASE_MAYBE;
		f->cursor = 0;
	}
	/* Newest first: what took effect did so soon, as a rule, and the oldest never. */
	while (f->phase < PHASE_END) {
		f->cursor = s->maybe_prev[f->cursor];
		f->item = f->cursor == 0 ? NONE : w->maybe[f->cursor - 1];
		if (f->item == NONE) {
			f->phase++;
			f->cursor = 0;
		} else if (may_come_next(s, f, f->item) &&
			   (f->phase == PHASE_ORPHAN ||
			    is_wanted(s, f->item) == (f->phase == PHASE_WANTED))) {
			return true;
		}
	}
	f->item = NONE;
	return false;
}

/* The next orphan, from f->bind on, that the item in hand may write; NONE. */
static uint32_t
next_orphan(const struct search *s, struct frame *f)
{
	const struct work *w = s->w;

	if (w->item[f->item].kind == CHP_HISTORY_DELETE || !orphans_may_come(s, f))
		return NONE;
	/* Without soft ones the chain says which it is. */
	if (s->ordered && s->n_soft == 0) {
		uint32_t v = w->chain[f->chain];

		return f->bind++ == 0 && orphan_may_come(s, f, v) ? v : NONE;
	}
	while (f->bind < s->n_orphans) {
		uint32_t v = s->orphan[f->bind++];

		if (orphan_may_come(s, f, v))
			return v;
	}
	return NONE;
}

/*
 * A version that others still have to see may only be overwritten by the cas that is the last to
 * see it.
 */
static bool
may_be_overwritten(const struct search *s, const struct frame *f)
{
	const struct work *w = s->w;
	uint32_t left = s->left[f->s.version];
	uint32_t next;

	if (left != 1 || !s->ordered || w->n_unversioned > 0)
		return left <= 1;
	next = f->chain < w->n_chain ? w->version[w->chain[f->chain]].writer : NONE;
	return next != NONE && w->item[next].sees == f->s.version;
}

/* The next (item, version) to try in a frame; NONE as version: one that nobody names. */
static bool
next_choice(struct search *s, struct frame *f, uint32_t *version)
{
	const struct work *w = s->w;

	if (f->s.version != NONE && !may_be_overwritten(s, f))
		return false;
	for (;;) {
		if (f->item == NONE && !next_item(s, f))
			return false;
		*version = w->item[f->item].writes;
		if (*version != NONE && f->bind++ == 0)
			return true;
		if (*version == NONE && f->bind != BIND_END) {
			if (f->phase <= PHASE_ORPHAN && (*version = next_orphan(s, f)) != NONE)
				return true;
			f->bind = BIND_END;
			if (f->phase != PHASE_ORPHAN)
				return true;
		}
		f->item = NONE;
	}
}

/* Make the state of the next frame: 1, 0 if the outcome would have been another, or an error. */
static int
enter_state(struct search *s, const struct frame *f, const struct item *it, uint32_t version,
	    struct frame *to)
{
	const struct work *w = s->w;
	const struct item *get;
	struct outcome o;
	size_t len;

	if (f->s.version != NONE && s->left[f->s.version] > 0 &&
	    !(it->role == ROLE_MUST && it->sees == f->s.version))
		return 0;
	if (!mutate(&f->s, it, &o))
		return 0;
	/*
	 * Only an orphan: with a writer the get itself does not fit then, and the report names it.
	 */
	if (version != NONE && w->version[version].writer == NONE &&
	    w->version[version].get != NONE) {
		get = &w->item[w->version[version].get];
		if (!outcome_is(&o, get->value, get->len))
			return 0;
	}
	len = (size_t)o.a_len + o.b_len;
	*to = (struct frame){
		.s = { .value = o.a, .len = (uint32_t)len, .version = version, .exists = o.exists }
	};
	if (outcome_is_plain(&o)) {
		to->s.hash = o.a == f->s.value && o.a_len == f->s.len ? f->s.hash : it->hash;
		return 1;
	}
	to->owned = malloc(len + 1);
	if (to->owned == NULL)
		return -ENOMEM;
	if (o.a_len > 0)
		memcpy(to->owned, o.a, o.a_len);
	if (o.b_len > 0)
		memcpy(to->owned + o.a_len, o.b, o.b_len);
	to->s.value = to->owned;
	to->s.hash = chp_history_hash(to->owned, len);
	return 1;
}

static bool
is_within(const struct state *s, const uint8_t *p, uint32_t len)
{
	for (uint32_t i = 0; s->len <= len && i <= len - s->len; i++) {
		if (memcmp(p + i, s->value, s->len) == 0)
			return true;
	}
	return false;
}

/* Whether incrs and decrs that are left can lead from v to a number from lo to hi. */
static bool
arith_reaches(const struct search *s, uint64_t v, uint64_t lo, uint64_t hi)
{
	if (s->wraps || v + s->sum[0] < v)
		return true;
	return v + s->sum[0] >= lo && v - (s->sum[1] < v ? s->sum[1] : v) <= hi;
}

/* Whether they can lead to some number that stands in a text. */
static bool
arith_reaches_part(const struct search *s, uint64_t v, const uint8_t *p, uint32_t len)
{
	for (uint32_t i = 0; i < len; i++) {
		for (uint32_t n = 1; n <= 20 && n <= len - i; n++) {
			uint64_t part;

			if (!parse_number(p + i, n, &part))
				break;
			if (arith_reaches(s, v, part, part))
				return true;
		}
	}
	return false;
}

/*
 * Whether arithmetic, with or without appends and prepends, can turn the value into another. Errs
 * on yes.
 */
static bool
arith_can_help(const struct search *s, const struct state *st, const uint8_t *p, uint32_t len,
	       bool concat)
{
	uint64_t v;
	uint64_t want;

	if (s->n_arith == 0 || !is_digits(st->value, st->len))
		return false;
	if (s->n_digits > 0)
		return true;
	if (!parse_number(st->value, st->len, &v))
		return false;
	if (parse_number(p, len, &want) && arith_reaches(s, v, want, want))
		return true;
	return concat && arith_reaches_part(s, v, p, len);
}

/*
 * Whether maybes that are left can turn the value into another without overwriting it. Errs on yes.
 */
static bool
can_become(const struct search *s, const struct state *st, const uint8_t *p, uint32_t len)
{
	if (st->len == len && memcmp(st->value, p, len) == 0)
		return true;
	return (s->n_concat > 0 && is_within(st, p, len)) ||
	       arith_can_help(s, st, p, len, s->n_concat > 0);
}

/* The same with certain appends and prepends on the way. */
static bool
can_lead_to(const struct search *s, const struct state *st, const uint8_t *p, uint32_t len)
{
	return is_within(st, p, len) || (s->n_arith > 0 && is_digits(st->value, st->len));
}

/* What becomes of a value that a maybe leaves behind. */
enum fate {
	FATE_WRONG, /* it cannot lead to what was seen later */
	FATE_FREE,  /* it is overwritten or never seen */
	FATE_FITS,  /* it may be what was seen */
};

/*
 * Whether a value that is no number may come of this state and not of the one before. What is
 * appended to this one could be appended to that; only where all that is left to append are digits,
 * nothing is sure.
 */
static bool
can_become_text(const struct search *s, const struct frame *f, const struct state *st)
{
	if (!state_is_number(st))
		return true;
	return s->n_concat > 0 && (!f->s.exists || s->n_concat == s->n_digits);
}

/*
 * Whether a sight that looks at the value without naming a version may see this one until a moment.
 */
static bool
deep_sight_until(const struct search *s, const struct frame *f, const struct state *st, uint64_t t)
{
	const struct work *w = s->w;
	uint32_t node = w->n_deep == 0 ? 0 : s->next[0];
	uint32_t scanned = 0;

	for (; node != 0; node = s->next[node]) {
		const struct item *it = &w->item[node_item(node)];

		if (++scanned > SCAN_MAX)
			return true;
		if ((is_call(node) ? it->inv : it->ret) > t)
			return false;
		if (!is_call(node) || it->role != ROLE_SIGHT || it->sees != NONE)
			continue;
		if (it->sight == SIGHT_NOT_NUMBER && can_become_text(s, f, st))
			return true;
		if (it->sight == SIGHT_VALUE && can_lead_to(s, st, it->value, it->len))
			return true;
	}
	return false;
}

/* The fate of a value that an incr or decr, or other maybes and then it, meet. */
static enum fate
fate_of_number(const struct search *s, const struct state *st, const struct item *it)
{
	uint64_t lo = it->kind == CHP_HISTORY_INCR ? it->number - it->arg : it->number + it->arg;
	uint64_t hi = lo;
	uint64_t v;

	if (!is_digits(st->value, st->len))
		return FATE_WRONG;
	if (!it->has_number || s->n_digits > 0)
		return FATE_FITS;
	if (!parse_number(st->value, st->len, &v))
		return FATE_WRONG;
	if (it->kind == CHP_HISTORY_DECR && it->number == 0)
		lo = 0;
	return arith_reaches(s, v, lo, hi) ? FATE_FITS : FATE_WRONG;
}

/* The fate of a value before an append or prepend that a get saw the result of. */
static enum fate
fate_before_get(const struct search *s, const struct state *st, const struct item *it,
		const struct item *get)
{
	const uint8_t *p = get->value;
	uint32_t len;

	if (get->len < it->len)
		return FATE_WRONG;
	len = get->len - it->len;
	if (memcmp(it->kind == CHP_HISTORY_APPEND ? p + len : p, it->value, it->len) != 0)
		return FATE_WRONG;
	if (it->kind == CHP_HISTORY_PREPEND)
		p += it->len;
	return can_become(s, st, p, len) ? FATE_FITS : FATE_WRONG;
}

/*
 * The fate of the value in a state when `first` writes the next version of the chain. It passes
 * through appends, prepends, incrs and decrs until somebody sees it or something overwrites it.
 */
static enum fate
fate_of_value(const struct search *s, const struct frame *f, uint32_t first, const struct state *st)
{
	const struct work *w = s->w;

	for (uint32_t k = f->chain; k < w->n_chain; k++) {
		const struct version *v = &w->version[w->chain[k]];
		const struct item *get = v->get == NONE ? NULL : &w->item[v->get];
		uint32_t i = k == f->chain ? first : v->writer;
		const struct item *it = i == NONE ? NULL : &w->item[i];

		if (it == NULL || (it->kind >= CHP_HISTORY_APPEND && v->seen_deep) ||
		    k - f->chain > SCAN_MAX)
			return FATE_FITS;
		if (k == f->chain && it->kind >= CHP_HISTORY_INCR)
			return fate_of_number(s, st, it);
		if (k == f->chain && it->kind >= CHP_HISTORY_APPEND && get != NULL)
			return fate_before_get(s, st, it, get);
		if (it->kind >= CHP_HISTORY_INCR ? is_digits(st->value, st->len)
						 : get != NULL && it->kind >= CHP_HISTORY_APPEND &&
							   can_lead_to(s, st, get->value, get->len))
			return FATE_FITS;
		/* Later mutations have to meet another value, so this one is overwritten before. */
		if (it->kind >= CHP_HISTORY_INCR || it->kind < CHP_HISTORY_APPEND || get != NULL)
			return deep_sight_until(s, f, st, it->ret) ? FATE_FITS : FATE_FREE;
	}
	return deep_sight_until(s, f, st, NEVER) ? FATE_FITS : FATE_FREE;
}

/*
 * Whether a maybe that left state `to` can be of use to the operation that writes the next version.
 */
static bool
helps_writer(const struct search *s, const struct frame *f, uint32_t i, const struct state *to)
{
	const struct item *it = &s->w->item[i];
	enum fate fate;

	switch (it->kind) {
	case CHP_HISTORY_PUT: /* needs nothing */
	case CHP_HISTORY_ADD: /* needs absence */
	case CHP_HISTORY_CAS: /* needs a version that somebody names */
		return false;
	case CHP_HISTORY_DELETE:
	case CHP_HISTORY_REPLACE:
		return !f->s.exists;
	default:
		break;
	}
	fate = fate_of_value(s, f, i, to);
	return fate == FATE_FITS || (fate == FATE_FREE && !f->s.exists);
}

/*
 * Whether a value that a maybe leaves is of use to the next mutation with a known version, or to a
 * sight.
 */
static bool
value_helps(const struct search *s, const struct frame *f, const struct state *to)
{
	const struct work *w = s->w;
	const struct version *v = f->chain < w->n_chain ? &w->version[w->chain[f->chain]] : NULL;
	uint64_t until = NEVER;
	uint32_t scanned = 0;

	if (v != NULL && v->writer != NONE) {
		if (helps_writer(s, f, v->writer, to))
			return true;
		until = w->item[v->writer].ret;
	} else if (v != NULL) {
		for (uint32_t m = s->maybe_next[0]; m != 0; m = s->maybe_next[m]) {
			if (++scanned > SCAN_MAX || helps_writer(s, f, w->maybe[m - 1], to))
				return true;
		}
		if (v->seer != NONE)
			until = w->item[v->seer].ret;
	}
	return deep_sight_until(s, f, to, until);
}

/*
 * Whether a maybe is of any use that has just led from frame f to state `to` under a version that
 * nobody names, and was not seen at once. What is of no use can be left out, and without this rule
 * all subsets of the maybes would be tried wherever the search is stuck. Errs on yes. Only for
 * searches by version: there the next mutation with a known outcome is known. A delete is always
 * kept; it can make room for an add.
 */
static bool
maybe_helps(const struct search *s, const struct frame *f, const struct state *to)
{
	const struct work *w = s->w;

	if (!s->ordered || w->n_unversioned > 0 || !to->exists || value_helps(s, f, to))
		return true;
	if (f->s.exists || s->n_replace == 0)
		return false;
	/* What revived the key lets a replace overwrite it. */
	for (uint32_t m = s->maybe_next[0]; m != 0; m = s->maybe_next[m]) {
		const struct item *it = &w->item[w->maybe[m - 1]];
		struct state st = {
			.value = it->value, .len = it->len, .version = NONE, .exists = true
		};

		if (it->kind == CHP_HISTORY_REPLACE && value_helps(s, f, &st))
			return true;
	}
	return false;
}

/*
 * Whether all orphans that this maybe can have written and did not can still be written by others.
 */
static bool
sources_remain(const struct search *s, const struct frame *to, uint32_t i)
{
	const struct work *w = s->w;

	if (!s->counted)
		return true;
	for (uint32_t k = w->item[i].sources; k != NONE; k = s->source[k].next) {
		uint32_t v = s->source[k].orphan;
		const struct item *get = &w->item[w->version[v].get];
		struct state st = { .value = get->value, .len = get->len, .exists = true };

		if (s->done[v] == 0 && to->s.version != v && s->n_writers[v] == 0 &&
		    !(s->n_arith > 0 && state_is_number(&st)))
			return false;
	}
	return true;
}

/* Try the item as the next one: push the frame it leads to. 1 pushed, 0 not, or an error. */
static int
try_choice(struct search *s, struct frame *f, uint32_t i, uint32_t version)
{
	const struct work *w = s->w;
	struct frame *to = &s->frame[s->depth];
	int rc = enter_state(s, f, &w->item[i], version, to);

	if (rc != 1)
		return rc;
	to->mark = s->n_placed;
	to->chain = f->chain;
	to->last = f->last;
	to->item = NONE;
	to->phase = PHASE_CHAIN;
	to->idle = w->item[i].role == ROLE_MAYBE && version == NONE;
	to->revived = !f->s.exists;
	if (s->ordered && version != NONE) {
		to->last = version + 1;
		to->chain += f->chain < w->n_chain && version == w->chain[f->chain];
	}
	put_item(s, i);
	if (w->item[i].role == ROLE_MAYBE && !sources_remain(s, to, i)) {
		take_back_item(s);
		free(to->owned);
		return 0;
	}
	put_sights(s, to);
	rc = !to->idle || maybe_helps(s, f, &to->s) ? memo_add(s, to) : 0;
	if (rc == 1) {
		s->depth++;
		s->bytes += to->owned == NULL ? 0 : to->s.len;
		return 1;
	}
	while (s->n_placed > to->mark)
		take_back_item(s);
	free(to->owned);
	return rc;
}

static void
pop_frame(struct search *s)
{
	struct frame *f = &s->frame[--s->depth];

	while (s->n_placed > f->mark)
		take_back_item(s);
	s->bytes -= f->owned == NULL ? 0 : f->s.len;
	free(f->owned);
}

/* Search from the start; the frames of a search that found something stay until search_end. */
static int
search_run(struct search *s)
{
	struct work *w = s->w;
	struct frame *f = &s->frame[0];
	uint32_t n_certain = w->n - w->n_maybe;
	int rc;

	search_rewind(s);
	*f = (struct frame){ .s = { .version = NONE }, .item = NONE };
	s->depth = 1;
	put_sights(s, f);
	for (;;) {
		uint32_t version;

		if (s->n_certain > s->best)
			s->best = s->n_certain;
		if (s->n_certain == n_certain)
			return FOUND_ORDER;
		if (s->n_certain == s->stop_at)
			return FOUND_STOP;
		if (s->memo_n == UINT32_MAX || s->bytes + memo_bytes(s) > s->lim->bytes_max)
			return FOUND_LIMIT;
		rc = 0;
		while (rc == 0) {
			f = &s->frame[s->depth - 1];
			if (next_choice(s, f, &version)) {
				if (s->states++ == s->states_max)
					return FOUND_LIMIT;
				rc = try_choice(s, f, f->item, version);
			} else {
				pop_frame(s);
				if (s->depth == 0)
					return FOUND_NONE;
			}
		}
		if (rc < 0)
			return rc;
	}
}

/* --- report ----------------------------------------------------------------------------------- */

struct text {
	char *p;
	size_t cap;
	size_t len;
};

__attribute__((format(printf, 2, 3))) static void
say(struct text *t, const char *format, ...)
{
	va_list ap;
	int n;

	va_start(ap, format);
	n = vsnprintf(t->p + t->len, t->cap - t->len, format, ap);
	va_end(ap);
	if (n > 0)
		t->len += (size_t)n < t->cap - t->len ? (size_t)n : t->cap - t->len - 1;
}

static void
say_bytes(struct text *t, const uint8_t *p, uint32_t len)
{
	say(t, "\"");
	for (uint32_t i = 0; i < len && i < SHOWN_BYTES; i++) {
		if (p[i] >= ' ' && p[i] <= '~' && p[i] != '"' && p[i] != '\\')
			say(t, "%c", p[i]);
		else
			say(t, "\\x%02x", (unsigned int)p[i]);
	}
	say(t, "\"");
	if (len > SHOWN_BYTES)
		say(t, "... (%" PRIu32 " bytes)", len);
}

static void
say_name(struct text *t, const struct chp_history_op *op)
{
	say(t, "client %" PRIu64 " request %" PRIu64, op->client, op->req);
}

/* "put "x" -> ok, version 65536" */
static void
say_deed(struct text *t, const struct chp_history_op *op)
{
	bool get = op->kind == CHP_HISTORY_GET;

	say(t, "%s", chp_history_kind_name(op->kind));
	if (op->kind == CHP_HISTORY_CAS)
		say(t, " of version %" PRIu64, op->arg);
	if (op->kind == CHP_HISTORY_INCR || op->kind == CHP_HISTORY_DECR)
		say(t, " by %" PRIu64, op->arg);
	if (!get && op->value != NULL) {
		say(t, " ");
		say_bytes(t, op->value, op->value_len);
	}
	say(t, " -> ");
	if (op->outcome == CHP_HISTORY_OPEN)
		say(t, "unknown");
	else if (op->status != CHP_HISTORY_STATUS_NONE)
		say(t, "%s", chp_history_status_name(op->status));
	else if (!get || op->outcome != CHP_HISTORY_OK)
		say(t, "%s", chp_history_outcome_name(op->outcome));
	else if (op->value == NULL)
		say(t, "nothing");
	else
		say_bytes(t, op->value, op->value_len);
	if (op->has_number)
		say(t, " %" PRIu64, op->number);
	if (op->version != CHP_HISTORY_NO_VERSION)
		say(t, ", version %" PRIu64, op->version);
}

static const struct chp_history_op *
op_of(const struct work *w, uint32_t i)
{
	return &w->h->op[w->item[i].op];
}

static void
say_line(struct text *t, const struct work *w, uint32_t i, uint64_t base, bool culprit)
{
	const struct item *it = &w->item[i];

	say(t, "  %c %+" PRId64 "..", culprit ? '>' : ' ', (int64_t)(it->inv - base));
	if (it->ret != NEVER)
		say(t, "%+" PRId64, (int64_t)(it->ret - base));
	say(t, "  ");
	say_name(t, op_of(w, i));
	say(t, ": ");
	say_deed(t, op_of(w, i));
	say(t, "\n");
}

/*
 * The must above a version that completed first; NONE. What begins later should not see that
 * version.
 */
static uint32_t
find_newer(const struct work *w, uint32_t version)
{
	uint32_t newer = NONE;

	for (uint32_t i = 0; i < w->n; i++) {
		if (w->item[i].role == ROLE_MUST &&
		    w->item[i].version > w->version[version].number &&
		    (newer == NONE || w->item[i].ret < w->item[newer].ret))
			newer = i;
	}
	return newer;
}

/* The sentence and the two or three operations that contradict each other. */
static void
say_flaw(struct text *t, const struct work *w, const struct flaw *f)
{
	const struct version *v = &w->version[w->item[f->item].sees];
	uint32_t line[3] = { v->writer, f->other, f->item };
	uint64_t base = NEVER;

	say_name(t, op_of(w, f->item));
	say(t, " saw version %" PRIu64, v->number);
	if (f->kind == FLAW_UNWRITTEN)
		say(t, ", which nothing can have written like that.\n");
	else if (f->kind == FLAW_FUTURE)
		say(t, " before the operation that wrote it began.\n");
	else if (f->kind == FLAW_VALUE)
		say(t, ", but not the value that was written with it.\n");
	else
		say(t, ", which was there before, but between the two ");
	if (f->other != NONE) {
		say_name(t, op_of(w, f->other));
		say(t, f->kind == FLAW_STALE ? " replaced it.\n" : " saw another state.\n");
	}
	for (uint32_t k = 0; k < 3; k++) {
		if (line[k] != NONE && w->item[line[k]].inv < base)
			base = w->item[line[k]].inv;
	}
	say(t, "Times in ns since %" PRIu64 ":\n", base);
	for (uint32_t k = 0; k < 3; k++) {
		if (line[k] != NONE)
			say_line(t, w, line[k], base, line[k] == f->item);
	}
}

/* Two musts whose versions contradict real time, if there are such. */
static void
say_order_hint(struct text *t, const struct work *w)
{
	uint32_t first = NONE; /* the one that completes first of those with a higher version */

	for (uint32_t j = w->n_chain; j-- > 0;) {
		uint32_t i = w->version[w->chain[j]].writer;

		if (i == NONE)
			continue;
		if (first != NONE && w->item[first].ret < w->item[i].inv) {
			say_name(t, op_of(w, first));
			say(t, " was complete with version %" PRIu64 " before ",
			    w->item[first].version);
			say_name(t, op_of(w, i));
			say(t, " began, which got %" PRIu64 ".\n", w->item[i].version);
			return;
		}
		if (first == NONE || w->item[i].ret < w->item[first].ret)
			first = i;
	}
}

/*
 * The item to blame at the deepest point: one that saw the present version though it began after a
 * newer one was complete, else the one that completes first of those not placed: it cannot come
 * next.
 */
static uint32_t
find_culprit(const struct search *s, const struct frame *f)
{
	const struct work *w = s->w;
	uint32_t node = s->next[0];
	uint32_t newer;

	if (f->s.version != NONE && (newer = find_newer(w, f->s.version)) != NONE) {
		for (uint32_t i = 0; i < w->n; i++) {
			const struct item *it = &w->item[i];

			if (it->role != ROLE_MAYBE && it->sees == f->s.version && !s->placed[i] &&
			    it->inv > w->item[newer].ret)
				return i;
		}
	}
	while (is_call(node))
		node = s->next[node];
	return node_item(node);
}

static void
say_next_version(struct text *t, const struct search *s, const struct frame *f)
{
	const struct work *w = s->w;
	const struct version *v;

	if (!s->ordered || f->chain >= w->n_chain)
		return;
	v = &w->version[w->chain[f->chain]];
	say(t, "The next version is %" PRIu64, v->number);
	if (v->writer != NONE) {
		say(t, " by ");
		say_name(t, op_of(w, v->writer));
	} else if (v->seer != NONE) {
		say(t, ", seen by ");
		say_name(t, op_of(w, v->seer));
		say(t, ": ");
		say_deed(t, op_of(w, v->seer));
	}
	say(t, ".\n");
}

static void
say_timeline(struct text *t, const struct search *s, uint32_t culprit)
{
	const struct work *w = s->w;
	uint64_t until = w->item[culprit].ret;
	uint32_t from = s->n_placed > SHOWN_PLACED ? s->n_placed - SHOWN_PLACED : 0;
	uint64_t base = w->item[culprit].inv;
	uint32_t shown = 0;
	uint32_t first = 0;

	for (uint32_t k = from; k < s->n_placed; k++) {
		if (w->item[s->order[k]].inv < base)
			base = w->item[s->order[k]].inv;
	}
	say(t, "Times in ns since %" PRIu64 ". Placed in this order%s:\n", base,
	    from > 0           ? ", the last of them"
	    : s->n_placed == 0 ? " (none)"
			       : "");
	for (uint32_t k = from; k < s->n_placed; k++)
		say_line(t, w, s->order[k], base, false);
	say(t, "Not placed:\n");
	say_line(t, w, culprit, base, true);
	/* Of the others those invoked last before the culprit was complete. */
	for (uint32_t i = w->n; i-- > 0;) {
		if (s->placed[i] || i == culprit || w->item[i].inv > until)
			continue;
		if (++shown == SHOWN_OTHERS) {
			first = i;
			break;
		}
	}
	for (uint32_t i = first; i < w->n && w->item[i].inv <= until; i++) {
		if (!s->placed[i] && i != culprit)
			say_line(t, w, i, base, false);
	}
}

/*
 * Say how far the search came: run it again to its deepest point, which it reaches by the same
 * steps.
 */
static int
explain(struct search *s, struct text *t, uint32_t *op)
{
	struct work *w = s->w;
	const struct frame *f;
	uint32_t culprit;
	int rc;

	s->stop_at = s->best;
	rc = search_run(s);
	if (rc < 0) {
		search_end(s);
		return rc;
	}
	assert(rc == FOUND_STOP && s->depth > 0);
	f = &s->frame[s->depth - 1];
	culprit = find_culprit(s, f);
	*op = w->item[culprit].op;
	say(t, "After %" PRIu32 " of %" PRIu32 " certain operations the key ", s->n_certain,
	    w->n - w->n_maybe);
	if (f->s.exists) {
		say(t, "holds ");
		say_bytes(t, f->s.value, f->s.len);
	} else {
		say(t, "is absent");
	}
	if (f->s.version != NONE)
		say(t, ", version %" PRIu64, w->version[f->s.version].number);
	say(t, ", and no order goes on to ");
	say_name(t, op_of(w, culprit));
	say(t, ".\n");
	say_next_version(t, s, f);
	say_timeline(t, s, culprit);
	search_end(s);
	return 0;
}

/* --- verdict ---------------------------------------------------------------------------------- */

/* What one key turned out to be. */
struct judgement {
	enum chp_linear_verdict verdict;
	enum chp_linear_fault fault;
	bool searched;
	uint64_t states;
	uint32_t op;
};

/* Run one search and forget its frames. */
static int
search_once(struct search *s, bool ordered, uint64_t states_max, struct judgement *j)
{
	int rc;

	s->ordered = ordered;
	/* A way that needs no search takes one try for each operation. */
	s->states_max = states_max + s->w->n;
	rc = search_run(s);
	search_end(s);
	j->states += s->states;
	return rc;
}

/* Judge by search; text gets the explanation of a violation. */
static int
judge_by_search(struct work *w, const struct chp_linear_limits *lim, struct judgement *j,
		struct text *t)
{
	struct search s;
	uint32_t best;
	int by_version;
	int any;
	int rc = search_init(&s, w, lim);

	if (rc != 0)
		return rc;
	j->searched = true;
	by_version = search_once(&s, true, lim->states_max, j);
	if (by_version < 0 || by_version == FOUND_ORDER)
		return by_version < 0 ? by_version : 0;
	best = s.best;
	/*
	 * Without versions a second search would be the first again. With them it tells two faults
	 * apart, or finds that there is no order at all where the first gave up: neither is worth
	 * much time.
	 */
	any = w->n_versions == 0 ? by_version
				 : search_once(&s, false, lim->states_max / SECOND_SEARCH_PART, j);
	if (any < 0)
		return any;
	if (by_version == FOUND_LIMIT && any != FOUND_NONE) {
		j->verdict = CHP_LINEAR_UNDECIDED;
		say(t,
		    "undecided after %" PRIu64 " configurations; %" PRIu32 " of %" PRIu32
		    " certain operations were placed at most\n",
		    j->states, best, w->n - w->n_maybe);
		return 0;
	}
	j->verdict = CHP_LINEAR_VIOLATION;
	j->fault = any == FOUND_NONE ? CHP_LINEAR_NO_ORDER : CHP_LINEAR_VERSION_ORDER;
	if (j->fault == CHP_LINEAR_NO_ORDER) {
		say(t, "not linearizable\n");
	} else {
		say(t, "versions not in linearization order%s\n",
		    any == FOUND_LIMIT ? " (whether values alone allow one is undecided)" : "");
		say_order_hint(t, w);
	}
	s.ordered = true;
	s.states_max = UINT64_MAX; /* it stops where the first did */
	s.best = best;
	return explain(&s, t, &j->op);
}

static void
judge_twice(const struct work *w, struct judgement *j, struct text *t)
{
	uint64_t base = w->item[w->twice[0]].inv;

	j->verdict = CHP_LINEAR_VIOLATION;
	j->fault = CHP_LINEAR_VERSION_TWICE;
	j->op = w->item[w->twice[1]].op;
	say(t, "two operations were given version %" PRIu64 "\n", w->item[w->twice[0]].version);
	say(t, "Times in ns since %" PRIu64 ":\n", base);
	for (uint32_t k = 0; k < 2; k++)
		say_line(t, w, w->twice[k], base, false);
}

static int
judge_key(struct work *w, const struct chp_linear_limits *lim, struct judgement *j, struct text *t)
{
	struct flaw f;
	int rc;

	if (w->n == 0)
		return 0;
	if (w->twice[0] != NONE) {
		judge_twice(w, j, t);
		return 0;
	}
	if (lim->search_only)
		return judge_by_search(w, lim, j, t);
	rc = witness_check(w);
	if (rc != 0)
		return rc < 0 ? rc : 0;
	rc = find_flaw(w, &f);
	if (rc != 0)
		return rc;
	if (f.kind == FLAW_NONE)
		return judge_by_search(w, lim, j, t);
	j->verdict = CHP_LINEAR_VIOLATION;
	j->fault = CHP_LINEAR_NO_ORDER;
	j->op = w->item[f.item].op;
	say(t, "not linearizable\n");
	say_flaw(t, w, &f);
	return 0;
}

/* Count a judgement; the text of the worst and first stays. */
static void
report_key(struct chp_linear_report *out, uint32_t key, const struct judgement *j,
	   const struct text *t, const struct work *w)
{
	struct text to = { .p = out->text, .cap = sizeof(out->text) };

	out->states += j->states;
	out->keys_by_search += j->verdict == CHP_LINEAR_OK && j->searched;
	out->keys_by_version += j->verdict == CHP_LINEAR_OK && !j->searched;
	out->keys_undecided += j->verdict == CHP_LINEAR_UNDECIDED;
	out->keys_violated += j->verdict == CHP_LINEAR_VIOLATION;
	if (j->verdict <= out->verdict)
		return;
	out->verdict = j->verdict;
	out->fault = j->fault;
	out->key = key;
	out->op = j->op;
	say(&to, "key ");
	say_bytes(&to, w->h->key[key].bytes, w->h->key[key].len);
	say(&to, ": %s", t->p);
}

int
chp_linear_check(const struct chp_history *h, const struct chp_linear_limits *lim,
		 struct chp_linear_report *out)
{
	struct chp_linear_limits l = lim == NULL ? (struct chp_linear_limits){ 0 } : *lim;
	char buf[CHP_LINEAR_TEXT_BYTES_MAX - 256];
	struct work w = { .h = h };
	int rc = 0;

	l.states_max = l.states_max == 0 ? CHP_LINEAR_STATES_MAX : l.states_max;
	l.bytes_max = l.bytes_max == 0 ? CHP_LINEAR_BYTES_MAX : l.bytes_max;
	l.violations_max = l.violations_max == 0 ? 1 : l.violations_max;
	memset(out, 0, sizeof(*out));
	out->key = CHP_HISTORY_NONE;
	out->op = CHP_HISTORY_NONE;
	for (uint32_t k = 0; k < h->n_keys && out->keys_violated < l.violations_max; k++) {
		struct judgement j = { .op = CHP_HISTORY_NONE };
		struct text t = { .p = buf, .cap = sizeof(buf) };

		buf[0] = '\0';
		rc = load_key(&w, &h->key[k]);
		if (rc == 0)
			rc = judge_key(&w, &l, &j, &t);
		if (rc != 0)
			break;
		report_key(out, k, &j, &t, &w);
	}
	if (rc != 0 && out->verdict == CHP_LINEAR_OK)
		out->verdict = CHP_LINEAR_UNDECIDED;
	work_fini(&w);
	return rc;
}

const char *
chp_linear_verdict_name(uint32_t verdict)
{
	static const char *const names[] = { "ok", "undecided", "violation" };

	return verdict < sizeof(names) / sizeof(names[0]) ? names[verdict] : "?";
}

const char *
chp_linear_fault_name(uint32_t fault)
{
	static const char *const names[] = { "none", "no_order", "version_order", "version_twice" };

	return fault < sizeof(names) / sizeof(names[0]) ? names[fault] : "?";
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * json.h - JSON files with the line of everything in them, and objects described by tables.
 *
 * For lib/config only. jansson decides what is JSON and holds the values, but forgets where they
 * stood. An index of positions is built over the same text, so that messages can name their lines.
 * A place is a value together with its position and its path; messages are written about places.
 *
 * Thread rule: no shared state; a document belongs to one thread.
 */
#ifndef CHP_CONFIG_JSON_H
#define CHP_CONFIG_JSON_H

#include "config/config.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CHP_JSON_BYTES_MAX (1u << 20)
#define CHP_JSON_PATH_BYTES 96u
#define CHP_JSON_NONE UINT32_MAX

/* ---- text of bounded length ---- */

/* Text that grows in a fixed buffer; what does not fit is cut and leaves "..." at the end. */
struct chp_line {
	char *at;
	size_t size;
	size_t len;
	bool cut;
};

/** Start an empty text in a buffer of at least 4 bytes. */
struct chp_line chp_line_init(char *buffer, size_t size);

/** Append. Control characters become '?': the text stays on one line. */
void chp_line_add(struct chp_line *t, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
void chp_line_vadd(struct chp_line *t, const char *format, va_list args);

/* ---- positions ---- */

/* A value of the document. Index 0 is the outermost one; offsets are into the text. */
struct chp_json_node {
	uint32_t parent, next, child; /* CHP_JSON_NONE where there is none */
	uint32_t last_child;
	uint32_t key_at, key_len;     /* between the quotes; escapes stand as in the text */
	uint32_t value_at, value_len;
	uint32_t line;                /* of the key, or of a value without one; from 1 */
};

struct chp_json_index {
	struct chp_json_node *node;
	uint32_t n;
	uint32_t capacity;
};

/**
 * Index a text. Any bytes are safe; the result is meaningful for what jansson accepted.
 *
 * @param len  at most CHP_JSON_BYTES_MAX
 * @return     false when memory is short
 *
 * Owns: chp_json_index_fini frees it, also after false.
 */
bool chp_json_index_init(struct chp_json_index *index, const char *text, size_t len);
void chp_json_index_fini(struct chp_json_index *index);

/** The member of an object, or the item of a list; CHP_JSON_NONE if there is none. Linear. */
uint32_t chp_json_index_key(const struct chp_json_index *index, const char *text, uint32_t node,
			    const char *key);
uint32_t chp_json_index_item(const struct chp_json_index *index, uint32_t node, uint32_t item);

/** The line of a path as "members[1].address"; 0 if there is no such value. "" is the outermost. */
uint32_t chp_json_index_line(const struct chp_json_index *index, const char *text,
			     const char *path);

/* ---- documents and places ---- */

struct chp_json_doc {
	const char *file;
	const char *text;
	json_t *root;
	struct chp_json_index index;
	struct chp_config_errors *errors;
	uint32_t first_error;                 /* errors that were there before */
	uint32_t line[CHP_CONFIG_ERRORS_MAX]; /* of errors->text[i], from first_error on */
};

struct chp_json_place {
	struct chp_json_doc *doc;
	json_t *value; /* borrowed from the document; NULL: it is not there */
	uint32_t node; /* its index node; the nearest one around it when it is not there */
	char path[CHP_JSON_PATH_BYTES];
};

/**
 * Read a text: JSON with an object outermost, in which no key stands twice.
 *
 * @param text  len bytes; must outlive the document
 * @return      false with errors added
 *
 * Owns: chp_json_close frees it; not needed after false.
 */
bool chp_json_open(struct chp_json_doc *doc, const char *text, size_t len, const char *file,
		   struct chp_config_errors *errors);

/** Free it, and put the errors that were added about it into the order of their lines. */
void chp_json_close(struct chp_json_doc *doc);

struct chp_json_place chp_json_root(struct chp_json_doc *doc);
struct chp_json_place chp_json_key(const struct chp_json_place *object, const char *key);
struct chp_json_place chp_json_item(const struct chp_json_place *list, uint32_t item);

/** Add the error "file:line: path: value: message". Control characters never get into it. */
void chp_json_error(const struct chp_json_place *place, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* ---- objects described by tables ---- */

enum chp_field_type {
	CHP_FIELD_END = 0,
	CHP_FIELD_UINT,    /* uint32_t or uint64_t, from min to max */
	CHP_FIELD_POW2,    /* the same, a power of two */
	CHP_FIELD_BOOL,
	CHP_FIELD_CHOICE,  /* an enum; its names in order of the values */
	CHP_FIELD_NAME,    /* char[CHP_NAME_BYTES_MAX + 1] */
	CHP_FIELD_PORT,    /* the same, ':' allowed */
	CHP_FIELD_ADDRESS, /* uint32_t, IPv4 in host byte order; "none" is 0 unless required */
	CHP_FIELD_CUSTOM,  /* lists and objects, read and printed by their own functions */
	CHP_FIELD_IGNORED, /* accepted, not looked at */
};

/* def of a key that must be there, and of one whose default other keys decide (stored as 0). */
#define CHP_FIELD_REQUIRED UINT64_MAX
#define CHP_FIELD_COMPUTED 0u

struct chp_field {
	const char *key;
	enum chp_field_type type;
	uint32_t offset, bytes;      /* of the member in its structure */
	uint64_t min, max, def;      /* in the file's unit */
	uint64_t unit;               /* member = number in the file * unit */
	const char *const *choices;  /* CHOICE: NULL-terminated */
	const char *const *later;    /* CHOICE: names that a later version will know */
	const char *text;            /* NAME: the default */
	const char *what;            /* what it is: used where it is missing */
	bool is_free;                /* members need not agree on it: not in the cluster hash */
};

#define CHP_MEMBER(s, m) .offset = offsetof(struct s, m), .bytes = sizeof(((struct s *)0)->m)

/* One row a key. def is a number in the file's unit, CHP_FIELD_REQUIRED or CHP_FIELD_COMPUTED. */
#define CHP_ROW_UINT(s, m, k, min_, max_, def_, unit_, what_)                                   \
	{ .key = k, .type = CHP_FIELD_UINT, CHP_MEMBER(s, m), .min = min_, .max = max_,         \
	  .def = def_, .unit = unit_, .what = what_ }
/* A number of the cluster file that the cluster hash leaves out. */
#define CHP_ROW_FREE(s, m, k, min_, max_, def_, unit_, what_)                                   \
	{ .key = k, .type = CHP_FIELD_UINT, CHP_MEMBER(s, m), .min = min_, .max = max_,         \
	  .def = def_, .unit = unit_, .what = what_, .is_free = true }
#define CHP_ROW_POW2(s, m, k, min_, max_, def_, what_)                                          \
	{ .key = k, .type = CHP_FIELD_POW2, CHP_MEMBER(s, m), .min = min_, .max = max_,         \
	  .def = def_, .unit = 1, .what = what_ }
#define CHP_ROW_BOOL(s, m, k, def_, what_)                                                      \
	{ .key = k, .type = CHP_FIELD_BOOL, CHP_MEMBER(s, m), .def = def_, .what = what_ }
#define CHP_ROW_CHOICE(s, m, k, choices_, later_, def_, what_)                                  \
	{ .key = k, .type = CHP_FIELD_CHOICE, CHP_MEMBER(s, m), .choices = choices_,            \
	  .later = later_, .def = def_, .what = what_ }
#define CHP_ROW_NAME(s, m, k, what_)                                                            \
	{ .key = k, .type = CHP_FIELD_NAME, CHP_MEMBER(s, m), .def = CHP_FIELD_REQUIRED,        \
	  .what = what_ }
#define CHP_ROW_NAME_DEFAULT(s, m, k, text_, what_)                                             \
	{ .key = k, .type = CHP_FIELD_NAME, CHP_MEMBER(s, m), .text = text_, .what = what_ }
#define CHP_ROW_PORT(s, m, k, what_)                                                            \
	{ .key = k, .type = CHP_FIELD_PORT, CHP_MEMBER(s, m), .def = CHP_FIELD_REQUIRED,        \
	  .what = what_ }
#define CHP_ROW_PORT_DEFAULT(s, m, k, text_, what_)                                             \
	{ .key = k, .type = CHP_FIELD_PORT, CHP_MEMBER(s, m), .text = text_, .what = what_ }
#define CHP_ROW_ADDRESS(s, m, k, def_, what_)                                                   \
	{ .key = k, .type = CHP_FIELD_ADDRESS, CHP_MEMBER(s, m), .def = def_, .what = what_ }
#define CHP_ROW_CUSTOM(k, def_, what_)                                                          \
	{ .key = k, .type = CHP_FIELD_CUSTOM, .def = def_, .what = what_ }
#define CHP_ROW_IGNORED(k) { .key = k, .type = CHP_FIELD_IGNORED }

/**
 * Read an object into a structure by its table: unknown keys and wrong values are errors, what is
 * not there or wrong gets its default (0 where it has none). A missing object is read as empty.
 *
 * @return  the fields that were wrong or missing: bit i is row i of the table
 */
uint64_t chp_json_read(const struct chp_json_place *object, const struct chp_field *fields,
		       void *to);

/** Whether none of the named rows is set in what chp_json_read returned. keys ends with NULL. */
bool chp_fields_ok(const struct chp_field *fields, uint64_t bad, const char *const *keys);

/** A number or choice of a structure as a number, in the structure's unit. */
uint64_t chp_field_number(const struct chp_field *f, const void *from);

/** An IPv4 address in host byte order, as "10.99.0.10". */
void chp_address_text(uint32_t address, char to[16]);

/* The rows of both files, in the order of printing. */
extern const struct chp_field chp_cluster_fields[];
extern const struct chp_field chp_member_fields[];
extern const struct chp_field chp_node_fields[];
extern const struct chp_field chp_lcore_fields[];
extern const struct chp_field chp_pool_fields[];
extern const struct chp_field chp_timer_fields[];
extern const struct chp_field chp_channel_fields[];
extern const struct chp_field chp_host_fields[];

/**
 * Read the object that describes one end of a channel.
 *
 * @param is_host  it is that of chaapar-host
 */
void chp_channel_keys_read(const struct chp_json_place *object, bool is_host, struct chp_channel_keys *to);

/** The name of a stage in a node file, as "rx0" or "control". */
void chp_stage_text(const struct chp_stage_config *s, char to[16]);

#endif /* CHP_CONFIG_JSON_H */

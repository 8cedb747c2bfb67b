/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The commands on one key.
 */
#include "ctl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Longer input is certainly beyond every cluster's maximum: no use in reading it all. */
#define STDIN_BYTES_MAX (1u << 20)

struct value {
	char *owned;
	const char *bytes;
	size_t len;
};

static int
read_stdin(struct ctl *ctl, struct value *v)
{
	size_t n = 0;
	ssize_t got;

	v->owned = malloc(STDIN_BYTES_MAX);
	if (v->owned == NULL)
		return ctl_fail(ctl, CTL_ERROR, "out of memory");
	while ((got = read(STDIN_FILENO, v->owned + n, STDIN_BYTES_MAX - n)) != 0) {
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return ctl_fail(ctl, CTL_ERROR, "standard input: %s", strerror(errno));
		n += (size_t)got;
		if (n == STDIN_BYTES_MAX)
			return ctl_fail(ctl, CTL_ERROR, "standard input: %s",
					chaapar_strerror(CHAAPAR_TOO_LARGE));
	}
	v->bytes = v->owned;
	v->len = n;
	return CTL_OK;
}

/* The value is an argument; "-" or nothing means standard input. */
static int
take_value(struct ctl *ctl, const char *argument, struct value *v)
{
	*v = (struct value){ 0 };
	if (argument == NULL && isatty(STDIN_FILENO))
		return ctl_usage(ctl, "no VALUE, and standard input is a terminal");
	if (argument == NULL || strcmp(argument, "-") == 0)
		return read_stdin(ctl, v);
	v->bytes = argument;
	v->len = strlen(argument);
	return CTL_OK;
}

/* Print how a command on a key ended; `number`: its new number is the answer. */
static int
finish(const struct ctl *ctl, const char *key, const struct chaapar_result *r, bool number)
{
	if (ctl->json) {
		json_t *o = json_object();

		ctl_json_bytes(o, "key", key, strlen(key));
		json_object_set_new(o, "status", json_string(chaapar_status_name(r->status)));
		if (r->cause != CHAAPAR_OK)
			json_object_set_new(o, "cause", json_string(chaapar_status_name(r->cause)));
		if (r->version != 0)
			json_object_set_new(o, "version", json_integer((json_int_t)r->version));
		if (number && r->status == CHAAPAR_OK) {
			char digits[24];

			/* As text: JSON numbers beyond 2^53 do not survive everywhere. */
			snprintf(digits, sizeof(digits), "%llu", (unsigned long long)r->number);
			json_object_set_new(o, "number", json_string(digits));
		}
		if (r->node != CHAAPAR_ANY_NODE)
			json_object_set_new(o, "node", json_integer(r->node));
		json_object_set_new(o, "retries", json_integer(r->retries));
		if (r->relaxed)
			json_object_set_new(o, "relaxed", json_true());
		ctl_json_print(o);
	} else if (r->status != CHAAPAR_OK) {
		ctl_report(ctl, r);
	} else if (number) {
		printf("%llu\n", (unsigned long long)r->number);
	} else {
		printf("ok version %llu\n", (unsigned long long)r->version);
	}
	return ctl_exit_code(r->status);
}

/* Options are over: so many arguments, from min to max. */
static int
arguments(struct ctl *ctl, int argc, char **argv, int min, int max)
{
	int o = ctl_getopt(ctl, argc, argv, NULL), n;

	if (o != -1)
		return o == 'h' ? -1 : CTL_USAGE;
	n = argc - optind;
	if (n < min)
		return ctl_usage(ctl, "expected %s", ctl->command->arguments);
	if (n > max)
		return ctl_usage(ctl, "unexpected argument \"%s\"", argv[optind + max]);
	return CTL_OK;
}

typedef enum chaapar_status write_fn(struct chaapar *c, const void *key, size_t key_len,
				     const void *value, size_t value_len,
				     struct chaapar_result *result);

static write_fn *
write_of(const char *name)
{
	static const struct {
		const char *name;
		write_fn *fn;
	} table[] = {
		{ "put", chaapar_put_sync },         { "add", chaapar_add_sync },
		{ "replace", chaapar_replace_sync }, { "append", chaapar_append_sync },
		{ "prepend", chaapar_prepend_sync },
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		if (strcmp(name, table[i].name) == 0)
			return table[i].fn;
	}
	return chaapar_put_sync;
}

int
ctl_put(struct ctl *ctl, int argc, char **argv)
{
	struct chaapar_result r;
	struct value v;
	const char *key;
	int code = arguments(ctl, argc, argv, 1, 2);

	if (code != CTL_OK)
		return code < 0 ? CTL_OK : code;
	key = argv[optind];
	code = take_value(ctl, argv[optind + 1], &v); /* argv ends with NULL */
	if (code == CTL_OK)
		code = ctl_connect(ctl);
	if (code == CTL_OK) {
		write_of(ctl->command->name)(ctl->c, key, strlen(key), v.bytes, v.len, &r);
		code = finish(ctl, key, &r, false);
	}
	free(v.owned);
	return code;
}

static void
print_value(const struct ctl *ctl, const char *key, const struct chaapar_result *r, bool newline)
{
	if (ctl->json) {
		json_t *o = json_object();

		ctl_json_bytes(o, "key", key, strlen(key));
		json_object_set_new(o, "status", json_string("ok"));
		ctl_json_bytes(o, "value", r->value, r->value_len);
		json_object_set_new(o, "version", json_integer((json_int_t)r->version));
		json_object_set_new(o, "node", json_integer(r->node));
		json_object_set_new(o, "retries", json_integer(r->retries));
		if (r->relaxed)
			json_object_set_new(o, "relaxed", json_true());
		ctl_json_print(o);
		return;
	}
	fwrite(r->value, 1, r->value_len, stdout);
	if (newline || isatty(STDOUT_FILENO))
		fputc('\n', stdout);
}

int
ctl_get(struct ctl *ctl, int argc, char **argv)
{
	enum { NEWLINE = CTL_OPTION_OWN, RELAXED };
	static const struct option own[] = {
		{ "newline", no_argument, NULL, NEWLINE },
		{ "relaxed", no_argument, NULL, RELAXED },
		{ 0 },
	};
	bool newline = false, relaxed = false;
	struct chaapar_result r;
	const char *key;
	int o, code;

	while ((o = ctl_getopt(ctl, argc, argv, own)) >= CTL_OPTION_OWN) {
		newline = newline || o == NEWLINE;
		relaxed = relaxed || o == RELAXED;
	}
	if (o != -1)
		return o == 'h' ? CTL_OK : CTL_USAGE;
	if (argc - optind != 1)
		return ctl_usage(ctl, "expected one KEY");
	key = argv[optind];
	code = ctl_connect(ctl);
	if (code != CTL_OK)
		return code;
	if ((relaxed ? chaapar_get_relaxed_sync : chaapar_get_sync)(ctl->c, key, strlen(key), &r) != CHAAPAR_OK)
		return finish(ctl, key, &r, false);
	print_value(ctl, key, &r, newline);
	return CTL_OK;
}

int
ctl_del(struct ctl *ctl, int argc, char **argv)
{
	struct chaapar_result r;
	const char *key;
	int code = arguments(ctl, argc, argv, 1, 1);

	if (code != CTL_OK)
		return code < 0 ? CTL_OK : code;
	key = argv[optind];
	code = ctl_connect(ctl);
	if (code != CTL_OK)
		return code;
	chaapar_delete_sync(ctl->c, key, strlen(key), &r);
	return finish(ctl, key, &r, false);
}

int
ctl_incr(struct ctl *ctl, int argc, char **argv)
{
	bool up = strcmp(ctl->command->name, "incr") == 0;
	struct chaapar_result r;
	uint64_t delta = 1;
	const char *key;
	int code = arguments(ctl, argc, argv, 1, 2);

	if (code != CTL_OK)
		return code < 0 ? CTL_OK : code;
	key = argv[optind];
	if (argv[optind + 1] != NULL &&
	    !ctl_number(ctl, "N", argv[optind + 1], 0, UINT64_MAX, &delta))
		return CTL_USAGE;
	code = ctl_connect(ctl);
	if (code != CTL_OK)
		return code;
	(up ? chaapar_incr_sync : chaapar_decr_sync)(ctl->c, key, strlen(key), delta, &r);
	return finish(ctl, key, &r, true);
}

/* --expect compares here and leaves it to the version that nothing changed meanwhile. */
static void
cas(struct ctl *ctl, const char *key, const char *expect, uint64_t version, const struct value *v,
    struct chaapar_result *r)
{
	if (expect != NULL) {
		if (chaapar_get_sync(ctl->c, key, strlen(key), r) != CHAAPAR_OK)
			return;
		if (r->value_len != strlen(expect) || memcmp(r->value, expect, r->value_len) != 0) {
			r->status = CHAAPAR_COMPARE_FAILED;
			return;
		}
		version = r->version;
	}
	chaapar_cas_sync(ctl->c, key, strlen(key), version, v->bytes, v->len, r);
}

int
ctl_cas(struct ctl *ctl, int argc, char **argv)
{
	static const struct option own[] = {
		{ "version", required_argument, NULL, CTL_OPTION_OWN },
		{ "expect", required_argument, NULL, CTL_OPTION_OWN + 1 },
		{ 0 },
	};
	const char *key, *expect = NULL;
	struct chaapar_result r = { .node = CHAAPAR_ANY_NODE };
	uint64_t version = 0;
	bool has_version = false;
	struct value v;
	int o, code;

	while ((o = ctl_getopt(ctl, argc, argv, own)) >= CTL_OPTION_OWN) {
		if (o == CTL_OPTION_OWN + 1)
			expect = optarg;
		else if (!ctl_number(ctl, "--version", optarg, 0, UINT64_MAX, &version))
			return CTL_USAGE;
		else
			has_version = true;
	}
	if (o != -1)
		return o == 'h' ? CTL_OK : CTL_USAGE;
	if (argc - optind < 1 || argc - optind > 2)
		return ctl_usage(ctl, "expected %s", ctl->command->arguments);
	if (has_version == (expect != NULL))
		return ctl_usage(ctl, "give either --version V or --expect OLD");
	key = argv[optind];
	code = take_value(ctl, argv[optind + 1], &v);
	if (code == CTL_OK)
		code = ctl_connect(ctl);
	if (code == CTL_OK) {
		cas(ctl, key, expect, version, &v, &r);
		code = finish(ctl, key, &r, false);
	}
	free(v.owned);
	return code;
}

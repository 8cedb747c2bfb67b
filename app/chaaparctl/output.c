/* SPDX-License-Identifier: BSD-3-Clause */
#include "ctl.h"

#include <stdlib.h>

int
ctl_exit_code(enum chaapar_status status)
{
	switch (status) {
	case CHAAPAR_OK:
		return CTL_OK;
	case CHAAPAR_NOT_FOUND:
		return CTL_NOT_FOUND;
	case CHAAPAR_COMPARE_FAILED:
	case CHAAPAR_EXISTS:
		return CTL_COMPARE_FAILED;
	case CHAAPAR_TIMEOUT:
	case CHAAPAR_UNSENT:
		return CTL_NO_ANSWER;
	default:
		return CTL_ERROR;
	}
}

void
ctl_report(const struct ctl *ctl, const struct chaapar_result *r)
{
	if (r->cause != CHAAPAR_OK && r->cause != r->status)
		ctl_fail(ctl, 0, "%s (the last answer was: %s)", chaapar_strerror((int)r->status),
			 chaapar_strerror((int)r->cause));
	else
		ctl_fail(ctl, 0, "%s", chaapar_strerror((int)r->status));
}

char *
ctl_base64(const void *bytes, size_t len)
{
	static const char digit[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const uint8_t *b = bytes;
	char *text = malloc((len + 2) / 3 * 4 + 1), *at = text;

	if (text == NULL)
		return NULL;
	for (size_t i = 0; i < len; i += 3) {
		uint32_t three = (uint32_t)b[i] << 16 |
				 (i + 1 < len ? (uint32_t)b[i + 1] << 8 : 0) |
				 (i + 2 < len ? b[i + 2] : 0);

		*at++ = digit[three >> 18];
		*at++ = digit[three >> 12 & 63];
		*at++ = i + 1 < len ? digit[three >> 6 & 63] : '=';
		*at++ = i + 2 < len ? digit[three & 63] : '=';
	}
	*at = '\0';
	return text;
}

void
ctl_json_bytes(json_t *object, const char *name, const void *bytes, size_t len)
{
	json_t *s = json_stringn(len > 0 ? bytes : "", len); /* refuses what is not UTF-8 */
	char name64[32];
	char *text;

	if (s != NULL) {
		json_object_set_new(object, name, s);
		return;
	}
	text = ctl_base64(bytes, len);
	snprintf(name64, sizeof(name64), "%s64", name);
	json_object_set_new(object, name64, json_string(text != NULL ? text : ""));
	free(text);
}

void
ctl_json_print(json_t *value)
{
	json_dumpf(value, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9));
	fputc('\n', stdout);
	json_decref(value);
}

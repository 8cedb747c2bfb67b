/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * text.h - text for people in a caller's buffer: state dumps, traces, reasons.
 */
#ifndef CHP_BASE_TEXT_H
#define CHP_BASE_TEXT_H

#include <stddef.h>

/* Always terminated; what does not fit is cut. */
struct chp_text {
	char *at;
	char *end; /* one past the buffer */
};

/** Start an empty text in a buffer of at least one byte. */
static inline struct chp_text
chp_text_of(char *buffer, size_t size)
{
	buffer[0] = '\0';
	return (struct chp_text){ .at = buffer, .end = buffer + size };
}

/** Append formatted text. */
void chp_text_add(struct chp_text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif /* CHP_BASE_TEXT_H */

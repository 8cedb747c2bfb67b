/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/text.h"

#include <stdarg.h>
#include <stdio.h>

void
chp_text_add(struct chp_text *t, const char *format, ...)
{
	size_t room = (size_t)(t->end - t->at);
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(t->at, room, format, args);
	va_end(args);
	if (n > 0)
		t->at += (size_t)n < room ? (size_t)n : room - 1;
}

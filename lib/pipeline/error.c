/* SPDX-License-Identifier: BSD-3-Clause */
#include "pipeline/error.h"

#include <stdarg.h>
#include <stdio.h>

int
chp_error_set(struct chp_error *e, enum chp_exit code, const char *format, ...)
{
	va_list args;

	e->exit_code = (int)code;
	va_start(args, format);
	(void)vsnprintf(e->text, sizeof(e->text), format, args);
	va_end(args);
	return -1;
}

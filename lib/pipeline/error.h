/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * error.h - why the program cannot start: one line that says what to change, and the exit code.
 */
#ifndef CHP_PIPELINE_ERROR_H
#define CHP_PIPELINE_ERROR_H

/* Exit codes of the program; users' scripts rely on them. */
enum chp_exit {
	CHP_EXIT_OK = 0,       /* stopped cleanly */
	CHP_EXIT_FAILURE = 1,  /* failed while running */
	CHP_EXIT_USAGE = 2,    /* command line or configuration */
	CHP_EXIT_RESOURCE = 3, /* port or memory */
	CHP_EXIT_REFUSED = 4,  /* refused by the cluster */
};

struct chp_error {
	int exit_code; /* enum chp_exit */
	char text[512];
};

/** Fill an error; the text is cut where it does not fit. Returns -1, for `return chp_error_set(...)`. */
int chp_error_set(struct chp_error *e, enum chp_exit code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#endif /* CHP_PIPELINE_ERROR_H */

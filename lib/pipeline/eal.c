/* SPDX-License-Identifier: BSD-3-Clause */
#include "pipeline/eal.h"

#include "base/bytes.h"

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_log.h>

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Where the output goes while EAL starts; the handler of SIGABRT needs it. */
static int held_fd = -1, real_stderr = -1;

/* What was held back goes to the real standard error. Async-signal-safe. */
static void
release_output(void)
{
	char buffer[512];
	ssize_t n;

	if (lseek(held_fd, 0, SEEK_SET) != 0)
		return;
	while ((n = read(held_fd, buffer, sizeof(buffer))) > 0) {
		if (write(real_stderr, buffer, (size_t)n) < 0)
			return;
	}
}

/* rte_panic aborts: its message must not be lost. */
static void
on_abort(int signal_number)
{
	release_output();
	(void)signal(signal_number, SIG_DFL);
	(void)raise(signal_number);
}

/* A line of EAL that says nothing anybody needs. */
static bool
is_noise(const char *line)
{
	static const char *const skip[] = { "Usage:", "EAL common options", "EAL: FATAL",
					    "TELEMETRY: No legacy" };

	if (line[0] == '\0')
		return true;
	for (size_t i = 0; i < CHP_ARRAY_LEN(skip); i++) {
		if (strncmp(line, skip[i], strlen(skip[i])) == 0)
			return true;
	}
	return false;
}

/* The first line that says something, without the usage text that follows it. */
static char complaint[256];

static void
read_output(bool print)
{
	char text[8192], *save = NULL;
	ssize_t n = pread(held_fd, text, sizeof(text) - 1, 0);

	text[n > 0 ? n : 0] = '\0';
	for (char *line = strtok_r(text, "\n", &save); line != NULL; line = strtok_r(NULL, "\n", &save)) {
		if (is_noise(line))
			continue;
		if (complaint[0] == '\0')
			(void)snprintf(complaint, sizeof(complaint), "%s", line);
		if (print)
			(void)fprintf(stderr, "%s\n", line);
	}
}

const char *
chp_eal_complaint(void)
{
	return complaint;
}

int
chp_eal_start(int argc, char **argv, struct chp_error *error)
{
	struct sigaction abort_action = { .sa_handler = on_abort }, before;
	int real_stdout = dup(STDOUT_FILENO), rc, rte_error;

	/* Notices would drown the line that matters; EAL's --log-level still overrides this. */
	rte_log_set_global_level(RTE_LOG_WARNING);
	real_stderr = dup(STDERR_FILENO);
	held_fd = memfd_create("eal", MFD_CLOEXEC);
	if (real_stdout < 0 || real_stderr < 0 || held_fd < 0)
		return chp_error_set(error, CHP_EXIT_RESOURCE, "no file descriptors: %s", strerror(errno));
	(void)fflush(stdout);
	(void)dup2(held_fd, STDOUT_FILENO);
	(void)dup2(held_fd, STDERR_FILENO);
	(void)sigaction(SIGABRT, &abort_action, &before);
	rc = rte_eal_init(argc, argv);
	rte_error = rte_errno;
	(void)fflush(stdout);
	(void)fflush(stderr);
	(void)sigaction(SIGABRT, &before, NULL);
	(void)dup2(real_stdout, STDOUT_FILENO);
	(void)dup2(real_stderr, STDERR_FILENO);
	read_output(rc >= 0);
	if (rc < 0)
		(void)chp_error_set(error, rte_error == EINVAL ? CHP_EXIT_USAGE : CHP_EXIT_RESOURCE,
				    "EAL does not start with these options (%s): %s",
				    rte_strerror(rte_error),
				    complaint[0] != '\0' ? complaint : "no reason given");
	(void)close(real_stdout);
	(void)close(real_stderr);
	(void)close(held_fd);
	return rc < 0 ? -1 : 0;
}

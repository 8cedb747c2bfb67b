/* SPDX-License-Identifier: BSD-3-Clause */
#include "start.h"

#include "protocols/application.h"
#include "protocols/protocol.h"

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_lcore.h>
#include <rte_log.h>

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ------------------------------------------------------------------ configuration */

static int
config_failed(const struct chp_config_errors *errors, struct chp_error *error)
{
	uint32_t shown = errors->n < CHP_CONFIG_ERRORS_MAX ? errors->n : CHP_CONFIG_ERRORS_MAX;

	for (uint32_t i = 0; i < shown; i++)
		(void)fprintf(stderr, "chaapar: %s\n", errors->text[i]);
	return chp_error_set(error, CHP_EXIT_USAGE, "%u error%s in the configuration", errors->n,
			     errors->n == 1 ? "" : "s");
}

int
start_config(const char *cluster_file, const char *node_file, struct chp_cluster_config *cluster,
	     struct chp_node_config *node, struct chp_error *error)
{
	static struct chp_config_errors errors; /* 8 KiB */
	size_t len = 0;
	bool ok;
	char *text;

	errors.n = 0;
	text = chp_config_read_file(cluster_file, &len, &errors);
	ok = text != NULL && chp_cluster_config_parse(text, len, cluster_file, chp_protocol_names(),
						      chp_application_names(), cluster, &errors);
	free(text);
	if (!ok)
		return config_failed(&errors, error);
	text = chp_config_read_file(node_file, &len, &errors);
	ok = text != NULL && chp_node_config_parse(text, len, node_file, cluster, node, &errors);
	free(text);
	return ok ? 0 : config_failed(&errors, error);
}

/* ------------------------------------------------------------------ the address */

int
start_address(const struct chp_cluster_config *cluster, const struct chp_node_config *node,
	      struct chp_error *error)
{
	uint32_t ours = htonl(cluster->member[node->node].address);
	struct ifaddrs *list = NULL;
	int rc = 0;

	if (getifaddrs(&list) != 0)
		return 0; /* a kernel that does not tell holds nothing that we could name */
	for (const struct ifaddrs *i = list; i != NULL && rc == 0; i = i->ifa_next) {
		struct sockaddr_in a;
		char text[INET_ADDRSTRLEN];

		if (i->ifa_addr == NULL || i->ifa_addr->sa_family != AF_INET)
			continue;
		memcpy(&a, i->ifa_addr, sizeof(a));
		if (a.sin_addr.s_addr != ours)
			continue;
		rc = chp_error_set(error, CHP_EXIT_RESOURCE,
				   "the kernel holds this node's address %s on interface %s and would answer "
				   "for it: remove it (ip addr del) or give the node another one",
				   inet_ntop(AF_INET, &a.sin_addr, text, sizeof(text)), i->ifa_name);
	}
	freeifaddrs(list);
	return rc;
}

/* ------------------------------------------------------------------ EAL */

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
start_eal_complaint(void)
{
	return complaint;
}

int
start_eal(int argc, char **argv, struct chp_error *error)
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

/* ------------------------------------------------------------------ lcores */

int
start_lcores(const struct chp_node_config *node, struct chp_error *error)
{
	for (uint32_t i = 0; i < node->n_lcores; i++) {
		uint32_t lcore = node->lcore[i].lcore;
		char have[128] = "";
		size_t used = 0;

		if (lcore < RTE_MAX_LCORE && rte_lcore_is_enabled(lcore))
			continue;
		for (uint32_t l = 0; l < RTE_MAX_LCORE && used < sizeof(have); l++) {
			if (rte_lcore_is_enabled(l))
				used += (size_t)snprintf(have + used, sizeof(have) - used, "%s%u",
							 used > 0 ? "," : "", l);
		}
		return chp_error_set(error, CHP_EXIT_USAGE,
				     "lcore %u of the node file is not one of EAL's (%s): add it to -l or "
				     "--lcores, or change lcores in the node file",
				     lcore, have);
	}
	return 0;
}

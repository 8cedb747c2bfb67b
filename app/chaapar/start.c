/* SPDX-License-Identifier: BSD-3-Clause */
#include "start.h"

#include <rte_lcore.h>

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

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

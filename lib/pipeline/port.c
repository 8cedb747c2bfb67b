/* SPDX-License-Identifier: BSD-3-Clause */
#include "pipeline/port.h"

#include "base/bytes.h"
#include "channel/device.h"

#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_flow.h>
#include <rte_mempool.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define RX_CHECKSUMS (RTE_ETH_RX_OFFLOAD_IPV4_CKSUM | RTE_ETH_RX_OFFLOAD_UDP_CKSUM)
#define TX_CHECKSUMS (RTE_ETH_TX_OFFLOAD_IPV4_CKSUM | RTE_ETH_TX_OFFLOAD_UDP_CKSUM)

int
chp_port_find(const char *name, uint16_t *id, struct chp_error *error)
{
	char list[256] = "";
	size_t used = 0;

	if (rte_eth_dev_get_port_by_name(name, id) == 0)
		return 0;
	for (uint16_t port = 0; port < RTE_MAX_ETHPORTS; port++) {
		char other[RTE_ETH_NAME_MAX_LEN];
		int n;

		if (!rte_eth_dev_is_valid_port(port) ||
		    rte_eth_dev_get_name_by_port(port, other) != 0)
			continue;
		n = snprintf(list + used, sizeof(list) - used, "%s%s", used > 0 ? ", " : "", other);
		used += (size_t)n;
		if (used >= sizeof(list))
			break;
	}
	if (list[0] == '\0')
		return chp_error_set(error, CHP_EXIT_RESOURCE,
				     "port \"%s\" of the node file does not exist, nor does any other: add "
				     "--vdev=%s,... or -a <PCI address> before the --",
				     name, name);
	return chp_error_set(error, CHP_EXIT_RESOURCE,
			     "port \"%s\" of the node file does not exist; the ports that do: %s", name,
			     list);
}

static const char *
port_name(uint16_t id)
{
	static _Thread_local char name[RTE_ETH_NAME_MAX_LEN];

	if (rte_eth_dev_get_name_by_port(id, name) != 0)
		(void)snprintf(name, sizeof(name), "%u", id);
	return name;
}

/* What the port must be able to do before anything is configured. */
static int
check_abilities(const struct rte_eth_dev_info *info, uint16_t id, const struct chp_cluster_config *cluster,
		const struct chp_node_config *node, struct chp_error *error)
{
	const char *name = port_name(id);

	if (node->n_rx > info->max_rx_queues)
		return chp_error_set(error, CHP_EXIT_RESOURCE,
				     "port \"%s\" (%s) has at most %u receive queues, the node file has %u rx "
				     "stages",
				     name, info->driver_name, info->max_rx_queues, node->n_rx);
	if (node->n_tx > info->max_tx_queues)
		return chp_error_set(error, CHP_EXIT_RESOURCE,
				     "port \"%s\" (%s) has at most %u transmit queues, the node file has %u "
				     "tx stages",
				     name, info->driver_name, info->max_tx_queues, node->n_tx);
	if (info->max_mtu != 0 && cluster->mtu > info->max_mtu)
		return chp_error_set(error, CHP_EXIT_RESOURCE,
				     "port \"%s\" (%s) takes an MTU of at most %u, the cluster file says %u",
				     name, info->driver_name, info->max_mtu, cluster->mtu);
	if (node->rx_checksum == CHP_RX_CHECKSUM_OFFLOAD &&
	    (info->rx_offload_capa & RX_CHECKSUMS) != RX_CHECKSUMS)
		return chp_error_set(error, CHP_EXIT_RESOURCE,
				     "port \"%s\" (%s) does not compute checksums of received packets: set "
				     "rx_checksum to \"verify\" or, on a virtual link, \"off\"",
				     name, info->driver_name);
	return 0;
}

/* A pool in several pieces cannot be an AF_XDP socket's memory: the driver registers one range. */
static int
check_pool(const struct rte_eth_dev_info *info, const struct rte_mempool *pool, struct chp_error *error)
{
	if (strcmp(info->driver_name, "net_af_xdp") != 0 || pool->nb_mem_chunks == 1)
		return 0;
	return chp_error_set(error, CHP_EXIT_RESOURCE,
			     "the pool for received packets is in %u pieces, which AF_XDP cannot use: give "
			     "EAL more memory in one piece (-m, or --single-file-segments)",
			     pool->nb_mem_chunks);
}

/* Some drivers cannot set an MTU; then what the port has must be enough. */
static int
set_mtu(uint16_t id, const struct rte_eth_dev_info *info, uint16_t mtu, uint16_t before,
	struct chp_error *error)
{
	int rc = rte_eth_dev_set_mtu(id, mtu);
	bool fixed = rc == -ENOTSUP;

	if (rc == 0 || (fixed && info->max_mtu >= mtu && (before >= mtu || info->max_mtu == UINT16_MAX)))
		return 0;
	if (!fixed && before >= mtu)
		return 0;
	return chp_error_set(error, CHP_EXIT_RESOURCE,
			     "port \"%s\" (%s) does not take the cluster's MTU of %u (%s), it has %u: set it "
			     "on the device or lower mtu in the cluster file",
			     port_name(id), info->driver_name, mtu, rte_strerror(-rc), before);
}

static int
setup_queues(uint16_t id, const struct rte_eth_dev_info *info, const struct chp_node_config *node,
	     struct rte_mempool *rx_pool, uint64_t tx_offloads, struct chp_error *error)
{
	uint16_t rx_ring = (uint16_t)node->rx_ring, tx_ring = (uint16_t)node->tx_ring;
	struct rte_eth_txconf tx = info->default_txconf;
	int socket = rte_eth_dev_socket_id(id);
	int rc = rte_eth_dev_adjust_nb_rx_tx_desc(id, &rx_ring, &tx_ring);

	tx.offloads = tx_offloads;
	for (uint16_t q = 0; q < node->n_rx && rc == 0; q++)
		rc = rte_eth_rx_queue_setup(id, q, rx_ring, (unsigned int)socket, NULL, rx_pool);
	for (uint16_t q = 0; q < node->n_tx && rc == 0; q++)
		rc = rte_eth_tx_queue_setup(id, q, tx_ring, (unsigned int)socket, &tx);
	if (rc == 0)
		return 0;
	return chp_error_set(error, CHP_EXIT_RESOURCE,
			     "port \"%s\" (%s): queues of %u and %u descriptors cannot be set up (%s): change "
			     "rx_ring or tx_ring, or give EAL more memory (-m)",
			     port_name(id), info->driver_name, rx_ring, tx_ring, rte_strerror(-rc));
}

/* One rule a shard: UDP to its port goes to its queue. Everything else goes to queue 0. */
static int
steer(struct chp_port *port, const struct chp_cluster_config *cluster, const struct chp_node_config *node,
      struct chp_error *error)
{
	struct rte_flow_attr attr = { .ingress = 1 };
	struct rte_flow_item_udp mask = { .hdr = { .dst_port = 0xffff } };

	for (uint32_t s = 0; s < cluster->shards; s++) {
		struct rte_flow_item_udp spec = {
			.hdr = { .dst_port = chp_be16((uint16_t)(cluster->port_base + s)) },
		};
		struct rte_flow_item pattern[] = {
			{ .type = RTE_FLOW_ITEM_TYPE_ETH },
			{ .type = RTE_FLOW_ITEM_TYPE_IPV4 },
			{ .type = RTE_FLOW_ITEM_TYPE_UDP, .spec = &spec, .mask = &mask },
			{ .type = RTE_FLOW_ITEM_TYPE_END },
		};
		struct rte_flow_action_queue queue = { .index = (uint16_t)(s % node->n_rx) };
		struct rte_flow_action actions[] = {
			{ .type = RTE_FLOW_ACTION_TYPE_QUEUE, .conf = &queue },
			{ .type = RTE_FLOW_ACTION_TYPE_END },
		};
		struct rte_flow_error why = { 0 };
		struct rte_flow *flow = rte_flow_create(port->id, &attr, pattern, actions, &why);

		if (flow == NULL)
			return chp_error_set(error, CHP_EXIT_RESOURCE,
					     "port \"%s\" cannot steer UDP port %u to queue %u (%s): set steer "
					     "to false",
					     port_name(port->id), cluster->port_base + s, queue.index,
					     why.message != NULL ? why.message : "no reason given");
		port->flow[port->n_flows++] = flow;
	}
	return 0;
}

static int
configure(struct chp_port *port, const struct rte_eth_dev_info *info,
	  const struct chp_cluster_config *cluster, const struct chp_node_config *node,
	  struct rte_mempool *rx_pool, struct chp_error *error)
{
	struct rte_eth_conf conf = { .rxmode = { .mtu = cluster->mtu } };
	uint64_t rss = (RTE_ETH_RSS_IPV4 | RTE_ETH_RSS_NONFRAG_IPV4_UDP) & info->flow_type_rss_offloads;
	uint16_t mtu_before = 0;
	int rc;

	if (node->n_rx > 1 && !node->steer && rss != 0) {
		conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
		conf.rx_adv_conf.rss_conf.rss_hf = rss;
	}
	if (port->rx_checksum)
		conf.rxmode.offloads |= RX_CHECKSUMS;
	if (port->tx_checksum)
		conf.txmode.offloads |= TX_CHECKSUMS;
	/* Without this a vhost-user front end never sees that its back end came back. */
	if ((*info->dev_flags & RTE_ETH_DEV_INTR_LSC) != 0)
		conf.intr_conf.lsc = 1;
	(void)rte_eth_dev_get_mtu(port->id, &mtu_before);
	rc = rte_eth_dev_configure(port->id, (uint16_t)node->n_rx, (uint16_t)node->n_tx, &conf);
	if (rc != 0)
		return chp_error_set(error, CHP_EXIT_RESOURCE,
				     "port \"%s\" (%s) refuses %u rx and %u tx queues at MTU %u (%s)",
				     port_name(port->id), info->driver_name, node->n_rx, node->n_tx,
				     cluster->mtu, rte_strerror(-rc));
	if (set_mtu(port->id, info, (uint16_t)cluster->mtu, mtu_before, error) != 0 ||
	    setup_queues(port->id, info, node, rx_pool, conf.txmode.offloads, error) != 0)
		return -1;
	rc = rte_eth_dev_start(port->id);
	if (rc != 0)
		return chp_error_set(error, CHP_EXIT_RESOURCE, "port \"%s\" (%s) does not start (%s)",
				     port_name(port->id), info->driver_name, rte_strerror(-rc));
	port->started = true;
	return 0;
}

static void
find_mac(struct chp_port *port)
{
	struct rte_ether_addr mac;

	if (rte_eth_macaddr_get(port->id, &mac) == 0 && !rte_is_zero_ether_addr(&mac)) {
		memcpy(port->self.mac, mac.addr_bytes, CHP_MAC_BYTES);
		return;
	}
	port->self.mac[0] = 2; /* locally administered */
	port->self.mac[1] = 0;
	for (uint32_t i = 0; i < 4; i++)
		port->self.mac[2 + i] = (uint8_t)(port->self.address >> (24 - 8 * i));
}

int
chp_port_start(struct chp_port *port, uint16_t id, const struct chp_cluster_config *cluster,
	       const struct chp_node_config *node, struct rte_mempool *rx_pool, struct chp_error *error)
{
	struct rte_eth_dev_info info;
	int rc = rte_eth_dev_info_get(id, &info);

	*port = (struct chp_port){
		.id = id,
		.self.address = cluster->member[node->node].address,
	};
	if (rc != 0)
		return chp_error_set(error, CHP_EXIT_RESOURCE, "port %u cannot be asked what it is (%s)", id,
				     rte_strerror(-rc));
	port->rx_checksum = node->rx_checksum == CHP_RX_CHECKSUM_OFFLOAD;
	port->tx_checksum = (info.tx_offload_capa & TX_CHECKSUMS) == TX_CHECKSUMS;
	if (check_abilities(&info, id, cluster, node, error) != 0 ||
	    check_pool(&info, rx_pool, error) != 0)
		return -1;
	if (configure(port, &info, cluster, node, rx_pool, error) != 0 ||
	    (node->steer && steer(port, cluster, node, error) != 0)) {
		chp_port_stop(port);
		return -1;
	}
	find_mac(port);
	return 0;
}

void
chp_port_stop(struct chp_port *port)
{
	for (uint32_t i = 0; i < port->n_flows; i++)
		(void)rte_flow_destroy(port->id, port->flow[i], NULL);
	port->n_flows = 0;
	if (port->started)
		chp_device_stop(port->id);
	port->started = false;
}

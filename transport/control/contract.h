/* A path's contract: what was provisioned (DESIGN 6). Read from an INI file, docs/contract.md. Called by api/ when a context or an address names one;
 * plain data, no clock: whether it is valid now is asked with the time. */
#ifndef CONTROL_CONTRACT_H
#define CONTROL_CONTRACT_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "control/error.h"

enum {
	CONTRACT_FILE_MAX = 65536,
	CONTRACT_SRLG_MAX = 32,
	CONTRACT_NAME_MAX = 64,      /* circuit, with its terminator */
	CONTRACT_INTERFACE_MAX = 16, /* as IFNAMSIZ */
};
#define CONTRACT_NONE UINT64_MAX /* not said */

/* Which bytes the rate counts. */
enum contract_layer {
	CONTRACT_IP = 0,   /* IP packets */
	CONTRACT_ETHERNET, /* frames with header and FCS, and the VLAN tag if there is one: Y.1564's information rate */
	CONTRACT_LINE,     /* with preamble and gap too: the line's bit rate */
	CONTRACT_PAYLOAD,  /* UDP payloads: datagrams without IP and UDP headers */
};

enum contract_protection { CONTRACT_UNPROTECTED = 0, CONTRACT_1PLUS1, CONTRACT_1TO1, CONTRACT_1TON, CONTRACT_RESTORED };

struct contract {
	uint64_t up_bytes_per_s;                             /* from this host */
	uint64_t down_bytes_per_s;                           /* to this host */
	uint64_t rtt_ns;                                     /* base RTT, CONTRACT_NONE: to be measured */
	uint32_t layer;                                      /* enum contract_layer */
	bool dedicated;                                      /* nobody else is on it; default no */
	double share;                                        /* of the rate that Tern may use, (0, 1]; default 1 */
	uint64_t buffer_bytes;                               /* of the egress queue, CONTRACT_NONE: not known */
	uint32_t mtu_bytes;                                  /* largest IP packet, 0: not said */
	int32_t dscp, vlan;                                  /* -1: not said */
	uint64_t policer_cir_bytes_per_s, policer_cbs_bytes; /* both, or both CONTRACT_NONE */
	double loss_ceiling;                                 /* loss ratio above which loss means something; 0: not said */
	uint32_t srlgs;
	uint32_t srlg[CONTRACT_SRLG_MAX]; /* shared-risk link groups: paths with one in common can fail together */
	uint32_t protection;              /* enum contract_protection */
	uint64_t switch_ns;               /* how long a protection switch may take; 0 when unprotected */
	uint64_t other_rtt_ns;            /* RTT after the switch, CONTRACT_NONE: not said */
	char circuit[CONTRACT_NAME_MAX];  /* "": not said */
	char interface[CONTRACT_INTERFACE_MAX];
	int64_t valid_from_s, valid_to_s; /* Unix time, to excluded; INT64_MIN and INT64_MAX: not said */
};

/** What a contract is that says nothing. */
void contract_init(struct contract *c);

/**
 * Parses a contract.
 * @param name  of the file, for messages
 * @return 0; -TERN_EINVAL: error says "name:line: key = value: what is wrong; what is allowed", *out is undefined
 */
int contract_parse(const char *text, size_t bytes, const char *name, struct contract *out, struct control_error *error);

/** Reads and parses a file. @return as contract_parse; also -TERN_EIO (cannot be read, larger than CONTRACT_FILE_MAX) */
int contract_read(const char *path, struct contract *out, struct control_error *error);

/** @param unix_s  now. @return 0; -TERN_EINVAL: not yet or no longer valid, with the date */
int contract_valid(const struct contract *c, int64_t unix_s, struct control_error *error);

/**
 * How many bytes more than its IP packet a datagram costs on the layer that the rate counts; negative for CONTRACT_PAYLOAD.
 * @param below_bytes  IP and UDP headers of the path: 28 or 48
 */
int32_t contract_layer_bytes(const struct contract *c, uint32_t below_bytes);

#endif

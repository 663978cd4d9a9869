/* Contract files from anybody: whatever the bytes, parsing ends, stays inside them, and either gives a contract that holds together or says why not.
 */
#include <stdlib.h>
#include <string.h>
#include "control/contract.h"
#include "tern/error.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void need(int truth)
{
	if (!truth)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct control_error error = {""};
	struct contract c;
	int rc = contract_parse((const char *)data, size, "f", &c, &error);

	if (rc) {
		need(rc == -TERN_EINVAL && strncmp(error.text, "f:", 2) == 0 && strlen(error.text) > 10);
		return 0;
	}
	need(c.up_bytes_per_s > 0 && c.up_bytes_per_s <= 12500000000000 && c.down_bytes_per_s > 0);
	need(c.share > 0 && c.share <= 1 && c.loss_ceiling >= 0 && c.loss_ceiling <= 0.5);
	need(c.rtt_ns == CONTRACT_NONE || (c.rtt_ns > 0 && c.rtt_ns <= 10000000000));
	need(c.srlgs <= CONTRACT_SRLG_MAX && c.dscp >= -1 && c.dscp <= 63 && c.vlan >= -1 && c.vlan <= 4094 && c.mtu_bytes <= 65535);
	need((c.protection == CONTRACT_UNPROTECTED) == (c.switch_ns == 0) && c.layer <= CONTRACT_PAYLOAD && c.valid_from_s < c.valid_to_s);
	need(strlen(c.circuit) < sizeof(c.circuit) && strlen(c.interface) < sizeof(c.interface));
	contract_layer_bytes(&c, 28);
	contract_valid(&c, 1800000000, &error);
	return 0;
}

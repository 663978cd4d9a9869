/* Stands in for ipsec.c in builds without libipsec-mb: seal.c then takes EVP. */
#include "seal/impl.h"

const struct seal_impl *seal_ipsec(void)
{
	return NULL;
}

/* Text addresses as tern-copy's users write them. */
#ifndef COPY_ADDRESS_H
#define COPY_ADDRESS_H
#include "copy.h"

enum { COPY_ADDRESS_MAX = 1024 };

/** Completes an address: udp:// where no scheme is given, private=1 where asked for. @return 0, -1 with words in error */
int address_make(char out[COPY_ADDRESS_MAX], const char *text, bool private_link, struct copy_error *error);

#endif

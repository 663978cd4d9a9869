/* The congestion controls that are built in, by name. Called where a path is set up; the contract between a flow and a control is include/tern/cc.h. */
#ifndef CC_CC_H
#define CC_CC_H
#include "tern/cc.h"

/** @return the control of that name, NULL: there is none */
const struct tern_cc *cc_find(const char *name);

extern const struct tern_cc cc_fixed, cc_cubic, cc_lightpath;
#endif

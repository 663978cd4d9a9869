/* Version of the library and of its wire protocol. */
#ifndef TERN_VERSION_H
#define TERN_VERSION_H
#define TERN_VERSION_MAJOR 0
#define TERN_VERSION_MINOR 1
#define TERN_VERSION_PATCH 0
#define TERN_VERSION_TEXT "0.1.0"
#ifdef __cplusplus
extern "C" {
#endif
/** @return the version of the library in use at run time, "major.minor.patch"; static, never NULL */
const char *tern_version(void);
#ifdef __cplusplus
}
#endif
#endif

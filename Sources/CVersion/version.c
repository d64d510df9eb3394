#include "version.h"

// Only C takes values from a manifest.
uint64_t culvert_commit(void) { return CULVERT_COMMIT; }

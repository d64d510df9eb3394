#pragma once
#include <stdint.h>

/// The first twelve hexadecimal digits of the commit that was built; 0: it is not known.
uint64_t culvert_commit(void);

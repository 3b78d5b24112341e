#pragma once

namespace whence {

/// Lets the process keep up to 256 MiB of freed memory, and blocks of up to 32 MiB in it, for what is asked for next.
/// Otherwise the C library hands the buffers of each pass back to the system and has every page cleared anew: 8 % of a
/// pass over a small language model. A program's choice, so the tool makes it and the library does not. Without effect
/// where the C library is not glibc.
void keep_freed_memory();

}  // namespace whence

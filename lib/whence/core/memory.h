#pragma once

namespace whence {

/// Lets the process keep up to 256 MiB of freed memory, and blocks of up to 32 MiB in it, for what is asked for next.
/// Otherwise the C library hands the buffers of each pass back to the system and has every page cleared anew: 8 % of a
/// pass over a small language model. A program's choice, so the tool makes it and the library does not. Without effect
/// where the C library is not glibc.
void keep_freed_memory();

/// What the process holds in memory now, in bytes; 0 where the system does not tell.
double resident_bytes();
/// The most that it ever held, or held since forget_peak().
double peak_bytes();
/// Gives freed memory back to the system, for whoever goes on to something else: what is freed and kept is of the wrong
/// sizes for that and would lie below its peak. Milliseconds. Without effect where the C library is not glibc.
void give_back_freed_memory();
/// The same, and begins to look for the peak anew. Without effect where the system has no /proc/self/clear_refs.
void forget_peak();
/// What is allocated at the moment, whether it was ever written to or not; 0 where the C library is not glibc.
double allocated_bytes();
/// Has every allocation fail that would let the process hold more than `bytes`, itself included. Pages of files that
/// are mapped later do not count: the system takes them back. Throws InvalidArgument where that is less than is held
/// already, or where the system has no such limit.
void limit_memory(double bytes);
/// The limit of limit_memory(); infinite where there is none.
double memory_limit();
/// What this process may hold at most: the machine's memory, or less where there is a limit; infinite where the system
/// does not tell.
double most_bytes();
/// What may be kept of something that saves time but can be made anew: at most `most`, and a third of what a limit
/// leaves.
double keepable_bytes(double most);
/// Seconds since the process began, before main() did; 0 where the system does not tell.
double process_seconds();

}  // namespace whence

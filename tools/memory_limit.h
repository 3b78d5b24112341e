#pragma once
#include <exception>
#include <string>

namespace whence::cli {

/// The bytes that "2G", "1.5 GiB", "800MB" mean: KiB, MiB, GiB and TiB, K, M, G and T are powers of 1024, those in B of
/// 1000. Throws UsageError, naming the flag, for anything else.
double parse_bytes(const std::string& flag, const std::string& text);
/// "1.5 GiB".
std::string readable_bytes(double bytes);

/// Whether an exception says that there was not enough memory, the C++ library's or LibTorch's.
bool is_out_of_memory(const std::exception& error);

/// Keeps memory for when there is no other: destructors of JSON allocate, and where one cannot while an exception that
/// says so unwinds, the program ends without a word. It is used up by the first that needs it: whoever catches and goes
/// on keeps one anew. Nothing where one is kept.
void keep_reserve();
/// Gives it back, for what tells that memory was short. False where it was already.
bool release_reserve();

}  // namespace whence::cli

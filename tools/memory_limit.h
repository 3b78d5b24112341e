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

}  // namespace whence::cli

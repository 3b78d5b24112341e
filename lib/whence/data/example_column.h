#pragma once
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "whence/data/dataset.h"

namespace whence {

/// What a column of the table that `data` was read from says of each example, beside its input and its target: one
/// text an example. Of a list of tables every one has the column. `table` and `folder` are those of read_dataset();
/// csv, tsv (whose first line names the columns), jsonl, and safetensors, where it is a tensor [N] of integers. Throws
/// InvalidArgument where there is no such column or format, or rows are cut into several examples, DataError where a
/// row lacks it.
std::vector<std::string> read_example_column(const nlohmann::json& table, const std::filesystem::path& folder,
                                             const std::string& column, const Dataset& data);

/// Of a list of tables the one that each example comes from: "2 (held/b.jsonl)", counted from 1. Throws InvalidArgument
/// for a single one.
std::vector<std::string> tables_of_examples(const nlohmann::json& table, const Dataset& data);

}  // namespace whence

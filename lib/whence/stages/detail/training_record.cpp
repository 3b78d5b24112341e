#include "whence/stages/detail/training_record.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <tuple>

#include "whence/core/error.h"
#include "whence/core/files.h"
#include "whence/core/json.h"
#include "whence/stages/pipeline.h"

namespace whence::detail {
namespace fs = std::filesystem;
using nlohmann::json;

fs::path absolute_folder(const fs::path& folder) { return folder.empty() ? fs::current_path() : fs::absolute(folder); }

json parse_record(const std::string& text) { return json_object(text).value_or(json::object()); }

nlohmann::ordered_json validation_json(const std::vector<ValidationResult>& results) {
  auto out = nlohmann::ordered_json::array();
  for (const auto& at : results) {
    auto accuracy = std::isnan(at.accuracy) ? nlohmann::ordered_json() : nlohmann::ordered_json(at.accuracy);
    out.push_back(nlohmann::ordered_json::array({at.iteration, at.loss, std::move(accuracy), at.time}));
  }
  return out;
}

std::vector<ValidationResult> read_validation(const JsonView& told) {
  std::vector<ValidationResult> out;
  for (const auto& at : told.list()) {
    const auto accuracy = at[2];
    out.push_back({at[0].get<std::int64_t>(), at[1].get<double>(),
                   accuracy.is_null() ? std::numeric_limits<double>::quiet_NaN() : accuracy.get<double>(),
                   at.size() > 3 ? at[3].get<double>() : 0});
  }
  return out;
}

std::string training_text(const StageTraining& training) {
  const auto& at = training.stationarity;
  json out{{"converged", training.summary.converged},
           {"iterations", training.summary.iterations},
           {"examples", training.examples},
           {"parameters", training.parameters},
           {"objective", at.objective},
           {"gradient-norm", at.gradient_norm},
           {"data-gradient-norm", at.data_gradient_norm},
           {"relative-gradient-norm", at.relative_gradient_norm},
           {"gradient-of", training.stationarity_of},
           {"inverse-time", training.summary.inverse_time}};
  if (const auto& summary = training.summary; !summary.validation.empty()) {
    out[kValidation] = validation_json(summary.validation);
    out["kept"] = summary.kept;
    out["stopped-early"] = summary.stopped_early;
  }
  return json_text(out);
}

StageTraining read_training(const std::string& text, const std::string& where) {
  const JsonView told(parse_record(text), where);
  StageTraining out;
  out.summary.converged = told.value("converged", false);
  out.summary.iterations = told.value("iterations", std::int64_t{0});
  out.stationarity = {told.value("objective", 0.0), told.value("gradient-norm", 0.0),
                      told.value("data-gradient-norm", 0.0), told.value("relative-gradient-norm", 0.0)};
  out.stationarity_of = told.value("gradient-of", "");
  out.summary.inverse_time = told.value("inverse-time", 0.0);
  out.examples = told.value("examples", std::int64_t{0});
  out.parameters = told.value("parameters", std::int64_t{0});
  if (told.contains(kValidation)) {
    out.summary.validation = read_validation(told[kValidation]);
    out.summary.kept = told.value("kept", std::int64_t{-1});
    out.summary.stopped_early = told.value("stopped-early", false);
  }
  return out;
}

json file_digests(const std::vector<fs::path>& files, const fs::path& folder) {
  auto out = json::object();
  for (const auto& file : files) {
    const auto name = fs::absolute(file).lexically_proximate(absolute_folder(folder)).string();
    if (!out.contains(name)) {
      out[name] = digest_if_there(file);
    }
  }
  return out;
}

bool newer(const fs::path& file, const timespec& since) {
  struct stat found = {};  // the inode's time, which moving an older file here renews too
  return ::stat(file.c_str(), &found) == 0 &&
         std::tie(found.st_ctim.tv_sec, found.st_ctim.tv_nsec) >= std::tie(since.tv_sec, since.tv_nsec);
}

timespec written(const fs::path& file) {
  struct stat found = {};
  return ::stat(file.c_str(), &found) == 0 ? found.st_mtim : timespec{};
}

timespec now_of_files() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME_COARSE, &now);
  return now;
}

/// Of files up to this size times are not believed, which copies and clocks make anything: a tenth of a second at most.
constexpr std::uintmax_t kAlwaysRead = 32 << 20;

std::vector<std::string> changed_files(const json& digests, const fs::path& folder, const timespec& since) {
  std::vector<std::string> out;
  for (const auto& [name, held] : digests.items()) {
    const auto file = absolute_folder(folder) / name;
    std::error_code absent;
    const auto size = fs::file_size(file, absent);
    if (!absent && (size <= kAlwaysRead || newer(file, since)) &&
        (!held.is_string() || digest(file) != held.get_ref<const std::string&>())) {
      out.push_back(name);
    }
  }
  return out;
}

json table_in(const json& record, const char* key) {
  return record.contains(key) && record[key].is_object() ? record[key] : json::object();
}

void check_start(const json& record, const StageDescription& stage, std::uint64_t seed) {
  const auto run = table_in(record, "run");
  if (run.contains("seed") && run["seed"] != seed) {
    throw InvalidArgument(fmt::format("stage {}: its training began with seed {}, and the seed is {}: use --seed {}",
                                      stage.name, run["seed"].dump(), seed, run["seed"].dump()));
  }
  const auto then = table_in(record, "settings").value("head-start", "");
  if (then != stage.head_start) {
    const auto shown = [](const std::string& spec) { return spec.empty() ? std::string("random") : spec; };
    throw InvalidArgument(fmt::format("stage {}: its training began with head-start = \"{}\", now \"{}\"", stage.name,
                                      shown(then), shown(stage.head_start)));
  }
}

json recorded_settings(const json& record) {
  auto out = table_in(record, "settings");
  const auto write_out = [](json& table, const char* key, const auto& resolved) {
    if (table.contains(key) && table[key].is_string()) {
      try {
        table[key] = resolved(table[key].template get<std::string>());
      } catch (const Error&) {  // a method that is not known any more is another one
      }
    }
  };
  if (out.contains("model") && out["model"].is_object()) {
    write_out(out["model"], "spec", resolved_spec<Model>);
  }
  write_out(out, "tuning", resolved_spec<Tuning>);
  write_out(out, "loss", resolved_spec<Loss>);
  write_out(out, "optimizer", resolved_spec<Optimizer>);
  write_out(out, "priming", resolved_spec<Priming>);
  return out;
}

std::vector<std::string> changed_settings(const json& then, const json& now) {
  const auto before = then.flatten(), after = now.flatten();
  std::set<std::string> keys;
  for (const auto* table : {&before, &after}) {
    for (const auto& [key, value] : table->items()) {
      keys.insert(key);
    }
  }
  const auto text = [](const json& table, const std::string& key) {
    return table.contains(key) ? json_text(table.at(key)) : "not given";
  };
  std::vector<std::string> out;
  for (const auto& key : keys) {
    const bool root = key.empty();  // an empty table, flattened
    if (root || (before.contains(key) && after.contains(key) && before.at(key) == after.at(key))) {
      continue;
    }
    auto name = key.substr(1);
    std::replace(name.begin(), name.end(), '/', '.');
    out.push_back(fmt::format("{} = {}, now {}", name, text(before, key), text(after, key)));
  }
  return out;
}

std::vector<std::string> changed_records(const json& then, const json& now, const std::string& parent) {
  auto out = changed_settings(recorded_settings(then), table_in(now, "settings"));
  const auto run = changed_settings(table_in(then, "run"), table_in(now, "run"));
  out.insert(out.end(), run.begin(), run.end());
  const auto settled = out.size();
  const auto before = table_in(then, "files"), files = table_in(now, "files");  // items() refers to its table
  for (const auto& [name, held] : before.items()) {
    if (files.contains(name) && files[name] != held) {
      out.push_back(fmt::format("{} has changed", name));
    }
  }
  if (table_in(then, "parent") != table_in(now, "parent")) {
    out.push_back(fmt::format("stage {} has other weights", parent));
  }
  const auto data = [](const json& record) { return record.contains("data") ? record["data"] : json(); };
  if (out.size() == settled && data(then) != data(now)) {
    out.push_back("its examples are read otherwise");
  }
  return out;
}

}  // namespace whence::detail

#include "cli.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>

#include "help_examples.h"
#include "memory_limit.h"
#include "say.h"
#include "whence/core/error.h"
#include "whence/core/memory.h"
#include "whence/core/parallel.h"

namespace whence::cli {
namespace po = boost::program_options;

namespace {

const std::vector<std::pair<std::string, at::ScalarType>> kDtypes{
    {"float32", at::kFloat}, {"float64", at::kDouble}, {"bfloat16", at::kBFloat16}};

}  // namespace

at::ScalarType parse_dtype(const std::string& name) {
  std::vector<std::string> known;
  for (const auto& [word, type] : kDtypes) {
    if (word == name) {
      return type;
    }
    known.push_back(word);
  }
  throw UsageError(unknown_name("--dtype", name, known));
}

CommandLine::CommandLine(std::string command, std::string usage, std::string summary)
    : command_(std::move(command)),
      usage_(std::move(usage)),
      summary_(std::move(summary)),
      own_("Options"),
      common_("Common options") {
  common_.add_options()                                                                              //
      ("threads", po::value<std::int64_t>()->default_value(0), "threads to use; 0: all cores")       //
      ("seed", po::value<std::int64_t>(), "in place of the pipeline's seed")                         //
      ("device", po::value<std::string>()->default_value("cpu"), "cpu or cuda")                      //
      ("dtype", po::value<std::string>()->default_value("float32"), "float32, float64 or bfloat16")  //
      ("batch-size", po::value<std::int64_t>()->default_value(1024),
       "examples in one pass, fewer where they are large; changes memory, not results")  //
      ("memory-limit", po::value<std::string>(),
       "the most memory to hold, such as 4G; rank and score then halve --query-block and --batch-size until it does, "
       "the "
       "others stop where it does not")                                //
      ("quiet", po::bool_switch(), "no progress on standard error")    //
      ("json", po::bool_switch(), "machine-readable standard output")  //
      ("strict", po::bool_switch(),
       "exit 4 when a solve did not converge, or a checkpoint is far from a minimum or was trained otherwise")  //
      ("help,h", po::bool_switch(), "this text");
}

void CommandLine::positional(const std::string& name, const std::string& help, bool required) {
  positions_.add(name.c_str(), 1);
  own_.add_options()(name.c_str(), po::value<std::string>(), help.c_str());
  positional_names_.emplace_back(name, required);
}

void CommandLine::positionals(const std::string& name, const std::string& help) {
  positions_.add(name.c_str(), -1);
  own_.add_options()(name.c_str(), po::value<std::vector<std::string>>(), help.c_str());
  positional_names_.emplace_back(name, true);
}

namespace {

/// " = abc, expected a whole number", of what Boost says: "the argument ('abc') for option '--top' is invalid".
std::string expected_of(const po::value_semantic& semantic, const std::string& said) {
  const auto begin = said.find("('"), end = said.find("')");
  const auto* typed = dynamic_cast<const po::typed_value_base*>(&semantic);
  if (begin == said.npos || end == said.npos || typed == nullptr) {
    return ": " + said;
  }
  const auto& type = typed->value_type();
  const bool whole = type == typeid(std::int64_t) || type == typeid(std::uint64_t) || type == typeid(int);
  return fmt::format(" = {}, expected {}", said.substr(begin + 2, end - begin - 2),
                     whole                    ? "a whole number"
                     : type == typeid(double) ? "a number"
                                              : "another value");
}

}  // namespace

std::string CommandLine::help() const {
  std::ostringstream out;
  out << summary_ << "\n\nUsage: whence " << command_ << ' ' << usage_ << "\n\n";
  for (const auto& [line, purpose] : help_examples(command_)) {
    out << "  " << line << "\n      " << purpose << '\n';
  }
  out << '\n' << own_ << '\n' << common_;
  return out.str();
}

bool CommandLine::parse(const std::vector<std::string>& arguments) {
  read(arguments);
  return ready();
}

void CommandLine::note_unused(const std::vector<std::string>& names, const std::string& why) const {
  std::vector<std::string> unused;
  for (const auto& name : names) {
    if (given(name) && !flag("quiet")) {
      unused.push_back("--" + name);
    }
  }
  if (!unused.empty()) {
    note(fmt::format("{} play{} no part: {}", fmt::join(unused, ", "), unused.size() == 1 ? "s" : "", why));
  }
}

void CommandLine::read(const std::vector<std::string>& arguments, const Wanted& wanted) {
  po::options_description all;
  all.add(own_).add(common_);
  try {
    po::command_line_parser parser(arguments);
    parser.options(all).style(po::command_line_style::unix_style & ~po::command_line_style::allow_guessing);
    auto parsed = (wanted ? parser.allow_unregistered() : parser.positional(positions_)).run();
    if (wanted) {
      std::erase_if(parsed.options, [&](const auto& option) {
        return option.unregistered || option.position_key >= 0 || given(option.string_key) ||
               !wanted(option.string_key);
      });
    }
    for (const auto& option : parsed.options) {
      if (option.string_key != "from") {
        arguments_.insert(arguments_.end(), option.original_tokens.begin(), option.original_tokens.end());
      }
    }
    po::store(parsed, values_);
  } catch (const po::unknown_option& error) {
    std::vector<std::string> known;
    for (const auto& option : all.options()) {
      known.push_back("--" + option->long_name());
    }
    throw UsageError(unknown_name("option", error.get_option_name(), known));
  } catch (const po::too_many_positional_options_error&) {
    throw UsageError(fmt::format("too many arguments; usage: whence {} {}", command_, usage_));
  } catch (const po::validation_error& error) {
    const auto name = std::string(error.get_option_name()).substr(2);
    throw UsageError(fmt::format("--{}{}", name, expected_of(*all.find(name, false).semantic(), error.what())));
  } catch (const po::error& error) {
    throw UsageError(error.what());
  }
}

bool CommandLine::ready() {
  po::notify(values_);
  if (flag("help")) {
    say("{}", Ready{help()});
    return false;
  }
  for (const auto& [name, required] : positional_names_) {
    if (required && !has(name)) {
      throw UsageError(fmt::format("{} is missing; usage: whence {} {}", name, command_, usage_));
    }
  }
  if (values_.count("out") > 0 && !text("out").empty() &&
      std::filesystem::exists(std::filesystem::path(text("out")) / "config.json")) {
    throw InvalidArgument(fmt::format(
        "--out {}: a model lies there (config.json), in whose folder nothing is written: choose another", text("out")));
  }
  try {
    set_threads(get<std::int64_t>("threads"));
    if (has("memory-limit")) {
      limit_memory(parse_bytes("memory-limit", text("memory-limit")));
    }
  } catch (const InvalidArgument& error) {
    throw UsageError(fmt::format("--{}", error.what()));
  }
  return true;
}

std::int64_t CommandLine::whole(const std::string& name, std::int64_t least) const {
  const auto value = get<std::int64_t>(name);
  if (value < least) {
    throw UsageError(fmt::format("--{} = {}, expected a whole number >= {}", name, value, least));
  }
  return value;
}

std::string CommandLine::required(const std::string& name) const {
  if (!has(name)) {
    throw UsageError(fmt::format("--{} is missing; usage: whence {} {}", name, command_, usage_));
  }
  return text(name);
}

RunOptions CommandLine::run_options() const {
  RunOptions options;
  if (has("seed")) {
    options.seed = static_cast<std::uint64_t>(whole("seed", 0));
  }
  options.dtype = parse_dtype(text("dtype"));
  const auto device = text("device");
  if (device != "cpu" && device != "cuda") {
    throw UsageError(unknown_name("--device", device, {"cpu", "cuda"}));
  }
  options.device = device == "cuda" ? at::kCUDA : at::kCPU;
  if (options.device.is_cuda() && !at::hasCUDA()) {
    throw InvalidArgument(
        "--device cuda: this machine has no usable CUDA device, or this LibTorch was built without CUDA");
  }
  options.note = [quiet = flag("quiet")](const std::string& text) {
    if (!quiet) {
      note(text);
    }
  };
  options.batch_size = whole("batch-size", 1);
  return options;
}

}  // namespace whence::cli

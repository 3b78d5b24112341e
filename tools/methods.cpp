#include <fmt/format.h>

#include <array>
#include <functional>

#include "cli.h"
#include "json.h"
#include "say.h"
#include "whence/attribution/attributor.h"
#include "whence/core/error.h"
#include "whence/data/format.h"
#include "whence/icl/icl_method.h"
#include "whence/icl/state_kernel.h"
#include "whence/kernels/kernel_solver.h"
#include "whence/kernels/tangent_kernel.h"

namespace whence::cli {
namespace {

template <class Base>
Json list() {
  auto out = Json::array();
  for (const auto& method : whence::methods<Base>()) {
    auto options = Json::array();
    for (const auto& option : method.options("")) {
      options.push_back(
          {{"name", option.name}, {"default", option.value}, {"expected", option.bound}, {"help", option.help}});
    }
    out.push_back(
        {{"name", method.name}, {"summary", method.summary}, {"source", method.source}, {"options", options}});
  }
  return out;
}

struct Room {
  const char* name;
  const char* flag;
  Json (*list)();
};

constexpr std::array kRooms{
    Room{"data", "format = \"…\" in a data table", &list<DataFormat>},
    Room{"models", "[model] spec = \"…\"", &list<Model>},
    Room{"losses", "loss = \"…\" of a stage", &list<Loss>},
    Room{"tuning", "tuning = \"…\" of a stage", &list<Tuning>},
    Room{"training", "optimizer = \"…\" of a stage", &list<Optimizer>},
    Room{"priming", "priming = \"…\" of a stage", &list<Priming>},
    Room{"curvature", "--curvature SPEC", &list<Curvature>},
    Room{"solvers", "--solver SPEC", &list<Solver>},
    Room{"attribution", "--method SPEC", &list<Attributor>},
    Room{"kernels", "whence kernel --kernel SPEC", &list<TangentKernel>},
    Room{"kernel-solvers", "whence kernel --solver SPEC", &list<KernelSolver>},
    Room{"icl", "whence icl --method SPEC", &list<IclMethod>},
    Room{"icl-kernels", "whence icl --kernel SPEC", &list<StateKernel>},
};

void print(const Room& room, const Json& methods) {
  say("{}  ({})\n", room.name, room.flag);
  for (const auto& method : methods) {
    const auto source = method["source"].get<std::string>();
    say("  {:<22}{}{}\n", method["name"].get<std::string>(), method["summary"].get<std::string>(),
        source.empty() ? "" : fmt::format("  [{}]", source));
    for (const auto& option : method["options"]) {
      say("    {:<24}{}; {}; default {}\n", option["name"].get<std::string>(), option["help"].get<std::string>(),
          option["expected"].get<std::string>(), option["default"].get<std::string>());
    }
  }
  say("\n");
}

}  // namespace

int methods(const std::vector<std::string>& arguments) {
  CommandLine line("methods", "[ROOM]",
                   "Lists every registered method with its options. A spec is NAME or NAME:option=value,option=value.");
  line.positional("ROOM", "show this room only", false);
  if (!line.parse(arguments)) {
    return kDone;
  }
  Json all;
  std::vector<std::string> known;
  for (const auto& room : kRooms) {
    known.emplace_back(room.name);
    if (!line.has("ROOM") || line.text("ROOM") == room.name) {
      all[room.name] = room.list();
      if (!line.flag("json")) {
        print(room, all[room.name]);
      }
    }
  }
  if (all.empty()) {
    throw InvalidArgument(unknown_name("room", line.text("ROOM"), known));
  }
  if (line.flag("json")) {
    say("{}\n", Ready{json_text(all, 2)});
  }
  return kDone;
}

}  // namespace whence::cli

// The page as a browser shows it: Chromium runs it, says nothing on its console, and has the parts.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "whence/core/files.h"
#include "whence/report/html.h"

using namespace whence;
namespace fs = std::filesystem;

TEST_SUITE("report") {
  TEST_CASE("a page opens in Chromium, its console empty and its parts there") {
    std::string program;
    for (const char* name : {"chromium", "chromium-browser", "google-chrome"}) {
      if (program.empty() && std::system(fmt::format("command -v {} >/dev/null 2>&1", name).c_str()) == 0) {
        program = name;
      }
    }
    if (program.empty()) {
      MESSAGE("not run: no chromium on PATH");
      return;
    }
    Page page;
    page.title = "Where it comes from";
    page.verdict = {"verdict", "can be trusted: yes", Fact::State::kGood};
    page.evaluations.push_back({"Agreement", ScatterPlot{.points = {{0, 0}, {1, 1}}, .identity = true}, {}});
    page.shown.push_back(
        {.title = "Methods",
         .intervals = IntervalPlot{
             .title = "Methods", .rows = {{"one & only", 0.7, 0.6, 0.8}, {"other", 0.1, -0.1, 0.2}}, .ceiling = 0.9}});
    ExampleCard card{.id = 7, .removal = 0.5, .score = -3};
    card.content.tokens = {{"word for word", 0.5}};
    card.content.shared = {{0, 13}};
    card.interval = {0.4, 0.6};
    card.order_unsure = true;
    page.queries.push_back(
        {.id = 4, .stages = {{.stage = "one", .helpful = {card}}, {.stage = "two"}}, .shares = {0.75, 0.25}});
    const auto folder = fs::temp_directory_path() / fmt::format("whence-browser-{}", ::getpid());
    fs::create_directories(folder);
    write_text(folder / "page.html", render_page(page));
    for (const char* size : {"1280,900", "390,844", "390,844 --blink-settings=preferredColorScheme=0"}) {  // dark
      CAPTURE(size);
      const auto command = fmt::format(
          "{} --headless --no-sandbox --disable-gpu --user-data-dir={} --window-size={} "
          "--enable-logging=stderr --dump-dom file://{} >{} 2>{}",
          program, (folder / "profile").string(), size, (folder / "page.html").string(), (folder / "dom.html").string(),
          (folder / "err.txt").string());
      CHECK(std::system(command.c_str()) == 0);
      CHECK(read_text(folder / "err.txt").find("CONSOLE") == std::string::npos);
      const auto dom = read_text(folder / "dom.html");
      for (const char* part :
           {"class=\"verdict good\"", "<svg", "id=\"query-4\"", "class=\"shares\"", "90 % +0.4", "may as well stand",
            "one &amp; only", "stroke-dasharray", "harmful shared", "word for word in the query"}) {
        CAPTURE(std::string(part));
        CHECK(dom.find(part) != std::string::npos);
      }
    }
    fs::remove_all(folder);
  }
}

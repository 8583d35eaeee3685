"""The table of figures and bars."""


class Table:
    def __init__(self):
        self.rows = []

    def add(self, figure, weir, bare, value, first_bar, goal, unit="", higher_is_better=True):
        """`value` is compared with the bars: the ratio to bare, or the figure itself."""
        reached = (lambda bar: value >= bar) if higher_is_better else (lambda bar: value <= bar)
        verdict = "goal" if reached(goal) else "first bar" if reached(first_bar) else "MISSED"
        sign = "≥" if higher_is_better else "≤"
        self.rows.append([figure, weir, bare, f"{value:.0f}{unit}" if value >= 100 else f"{value:.3g}{unit}", f"{sign} {first_bar:g}", f"{sign} {goal:g}", verdict])

    def failed(self, figure, reason):
        self.rows.append([figure, "-", "-", "-", "-", "-", "FAILED"])
        print(f"    {figure}: FAILED: {reason}", flush=True)

    def print(self):
        lines = [["figure", "weir", "bare", "value", "first bar", "goal", "reached"], *self.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
        for number, line in enumerate(lines):
            print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |")
            if number == 0:
                print("|" + "|".join("-" * (width + 2) for width in widths) + "|")

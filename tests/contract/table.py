"""The table of techniques: every public one has a row here."""

from tests.contract.row import Row
from tests.contract.table_losses import LOSSES_ROWS
from tests.contract.table_schedules import SCHEDULE_ROWS

TABLE = {row.name: row for row in [*SCHEDULE_ROWS, *LOSSES_ROWS]}


def find_row(name: str) -> Row:
    """Return a row of the table, or of the deliberately bad techniques."""
    from tests.contract.planted import PLANTED

    return TABLE.get(name) or PLANTED[name]

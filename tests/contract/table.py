"""The table of techniques: every public one has a row here."""

from tests.contract.row import Row
from tests.contract.table_averaging import AVERAGING_ROWS
from tests.contract.table_channel_pruning import CHANNEL_PRUNING_ROWS
from tests.contract.table_channels_last import CHANNELS_LAST_ROWS
from tests.contract.table_clipping import CLIPPING_ROWS
from tests.contract.table_compile import COMPILE_ROWS
from tests.contract.table_dropout import DROPOUT_ROWS
from tests.contract.table_erase import ERASE_ROWS
from tests.contract.table_geometry import GEOMETRY_ROWS
from tests.contract.table_layer_classes import LAYER_CLASSES_ROWS
from tests.contract.table_losses import LOSSES_ROWS
from tests.contract.table_low_rank import LOW_RANK_ROWS
from tests.contract.table_mixing import MIXING_ROWS
from tests.contract.table_penalties import PENALTY_ROWS
from tests.contract.table_pruning import PRUNING_ROWS
from tests.contract.table_resize import RESIZE_ROWS
from tests.contract.table_schedules import SCHEDULE_ROWS
from tests.contract.table_sharing import SHARING_ROWS
from tests.contract.table_squeeze_excite import SQUEEZE_EXCITE_ROWS
from tests.contract.table_steps import STEP_ROWS
from tests.contract.table_tokens import TOKEN_ROWS
from tests.contract.table_use_optimizer import USE_OPTIMIZER_ROWS

ROWS = [
    *AVERAGING_ROWS,
    *CHANNEL_PRUNING_ROWS,
    *CHANNELS_LAST_ROWS,
    *CLIPPING_ROWS,
    *COMPILE_ROWS,
    *DROPOUT_ROWS,
    *ERASE_ROWS,
    *GEOMETRY_ROWS,
    *LAYER_CLASSES_ROWS,
    *LOSSES_ROWS,
    *LOW_RANK_ROWS,
    *MIXING_ROWS,
    *PENALTY_ROWS,
    *PRUNING_ROWS,
    *RESIZE_ROWS,
    *SCHEDULE_ROWS,
    *SHARING_ROWS,
    *SQUEEZE_EXCITE_ROWS,
    *STEP_ROWS,
    *TOKEN_ROWS,
    *USE_OPTIMIZER_ROWS,
]
TABLE = {row.name: row for row in ROWS}


def find_row(name: str) -> Row:
    """Return a row of the table, or of the deliberately bad techniques."""
    from tests.contract.planted_strict import ALL_PLANTED

    return TABLE.get(name) or ALL_PLANTED[name]

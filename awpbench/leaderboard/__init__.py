"""The leaderboard: rows (`row`), the file of them (`store`), tables of them (`render`). Importable without torch."""

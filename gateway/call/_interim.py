class Guards:
    def __init__(self, models):
        pass

    def watches(self, alias):
        return False
